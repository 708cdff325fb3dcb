//===- MoaVerify.cpp - Verifiers of the moa operations --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One function an operation; every message starts with the constraint's id in
// MoaOps.td, or in MoaDialect.td for attributes on other operations.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

#include "mlir/IR/BuiltinOps.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "moa/abi/kernel_args.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace moa;

//===----------------------------------------------------------------------===//
// Attributes on operations of other dialects
//===----------------------------------------------------------------------===//

static LogicalResult verifyLayer(Operation *op, Attribute value) {
  auto layer = dyn_cast<IntegerAttr>(value);
  if (!isa<FunctionOpInterface>(op) || !layer ||
      !layer.getType().isSignlessInteger(64) || layer.getInt() < 0)
    return op->emitOpError("(C3) expected '")
           << kLayerAttrName
           << "' to be an i64 of at least 0 on a function, got " << value;
  return success();
}

static LogicalResult verifyPlanId(Operation *op, Attribute value) {
  auto id = dyn_cast<StringAttr>(value);
  auto isDigit = [](char c) {
    return llvm::isHexDigit(c) && !llvm::isUpper(c);
  };
  if (!isa<ModuleOp>(op) || !id || id.size() != 64 ||
      !llvm::all_of(id.getValue(), isDigit))
    return op->emitOpError("(C2) expected '")
           << kPlanIdAttrName
           << "' to be 64 lower-case hexadecimal digits on a module, got "
           << value;
  return success();
}

LogicalResult MoaDialect::verifyOperationAttribute(Operation *op,
                                                   NamedAttribute attr) {
  StringRef name = attr.getName();
  Attribute value = attr.getValue();
  if (name == kModelAttrName && !(isa<ModuleOp>(op) && isa<ModelAttr>(value)))
    return op->emitOpError("(C1) expected '")
           << name << "' to be a #moa.model on a module, got " << value;
  if (name == kPlanIdAttrName)
    return verifyPlanId(op, value);
  if (name == kLayerAttrName)
    return verifyLayer(op, value);
  if (name == kKernelAttrName && !(isa<ModuleOp>(op) && isa<KernelAttr>(value)))
    return op->emitOpError("(C4) expected '")
           << name << "' to be a #moa.kernel on a module, got " << value;
  return success();
}

//===----------------------------------------------------------------------===//
// Operations
//===----------------------------------------------------------------------===//

/// The type of as many rows as `like` has, of `heads` heads that fit `cache`.
static RankedTensorType rowsFor(RankedTensorType like, int64_t heads,
                                CacheType cache) {
  return RankedTensorType::get({like.getDimSize(0), heads, cache.getDims()},
                               cache.getElementType());
}

/// What moa.cache_append and moa.rope_append have in common.
template <typename OpTy> static LogicalResult verifyAppended(OpTy op) {
  auto rows = cast<RankedTensorType>(op.getKeys().getType());
  CacheType cache = op.getCache().getType();
  RankedTensorType expected = rowsFor(rows, cache.getHeads(), cache);
  if (rows != expected)
    return op.emitOpError("(C1) expected keys and values of ")
           << expected << ", got " << rows;
  return success();
}

LogicalResult CacheAppendOp::verify() { return verifyAppended(*this); }

/// Whether as many query heads can share the cache's heads.
static bool isGrouped(int64_t heads, CacheType cache) {
  return !ShapedType::isDynamic(heads) && heads >= cache.getHeads() &&
         heads % cache.getHeads() == 0 &&
         heads / cache.getHeads() <= MOA_MAX_GROUP;
}

LogicalResult RopeAppendOp::verify() {
  if (failed(verifyAppended(*this)))
    return failure();
  auto keys = cast<RankedTensorType>(getKeys().getType());
  auto queries = cast<RankedTensorType>(getQueries().getType());
  CacheType cache = getCache().getType();
  int64_t heads = queries.getDimSize(1);
  if (!isGrouped(heads, cache) || queries != rowsFor(keys, heads, cache))
    return emitOpError("(C2) expected queries beside keys of ")
           << keys << ", of 1 to " << MOA_MAX_GROUP << " times the cache's "
           << cache.getHeads() << " heads, got " << queries;
  if (getRope().getRotaryDim() > cache.getDims())
    return emitOpError("(C3) expected to rotate at most the head size ")
           << cache.getDims() << ", got " << getRope();
  return success();
}

static LogicalResult verifyLayout(WindowedOpInterface op) {
  CacheLayoutAttr layout = op.getLayoutAttr();
  if (!layout)
    return success();
  CacheType cache = op.getCacheType();
  int64_t bytes =
      moa_page_bytes(cache.getDims(),
                     cache.getElementType().getIntOrFloatBitWidth() / CHAR_BIT);
  if (layout.getPageBytes() != bytes)
    return op->emitOpError("(C4) expected page_bytes = ")
           << bytes << " for " << cache << ", got " << layout.getPageBytes();
  int64_t lists = layout.getDeciding().size();
  if (lists != cache.getHeads())
    return op->emitOpError("(C4) expected deciding query heads for ")
           << cache.getHeads() << " KV heads, got " << lists;
  for (auto [kv, heads] : llvm::enumerate(layout.getDeciding())) {
    int64_t first = kv * op.getGroup(), last = first + op.getGroup() - 1;
    int64_t before = first - 1;
    for (int64_t head : heads.asArrayRef()) {
      if (head <= before || head > last)
        return op->emitOpError("(C4) expected the heads that decide KV head ")
               << kv << " to increase from " << first << " to at most " << last
               << ", got " << heads;
      before = head;
    }
  }
  return success();
}

/// What moa.attention and moa.decode have in common.
static LogicalResult verifyAttend(WindowedOpInterface op, RankedTensorType rows,
                                  FloatAttr scale, FloatAttr softCap) {
  CacheType cache = op.getCacheType();
  int64_t heads = rows.getDimSize(1);
  if (!isGrouped(heads, cache))
    return op->emitOpError("(C1) expected query heads to be 1 to ")
           << MOA_MAX_GROUP << " times the cache's " << cache.getHeads()
           << " heads, got queries of " << rows;
  RankedTensorType expected = rowsFor(rows, heads, cache);
  if (rows != expected)
    return op->emitOpError("(C2) expected queries of ")
           << expected << " for this cache, got " << rows;
  if (WindowAttr window = op.getWindowAttr()) {
    if (static_cast<int64_t>(window.getSpans().size()) != heads)
      return op->emitOpError("(C3) expected one span per query head (")
             << heads << "), got " << window.getSpans().size();
    if (window.hasKv8() &&
        static_cast<int64_t>(window.getKv().size()) != cache.getHeads())
      return op->emitOpError("(C3) expected one kv format per KV head (")
             << cache.getHeads() << "), got " << window.getKv().size();
    if (window.hasKv8() && cache.getElementType().isF32())
      return op->emitOpError("(C3) expected f16 or bf16 beside pages of 8 "
                             "bits, got ")
             << cache;
  }
  if (scale && !scale.getValue().isFinite())
    return op->emitOpError("(C5) expected a finite scale, got ") << scale;
  if (softCap && !isSoftCap(softCap))
    return op->emitOpError("(C5) expected a soft cap between 2^-20 and 2^20, "
                           "got ")
           << softCap;
  return verifyLayout(op);
}

LogicalResult AttentionOp::verify() {
  return verifyAttend(*this, cast<RankedTensorType>(getQueries().getType()),
                      getScaleAttr(), getSoftCapAttr());
}

LogicalResult DecodeOp::verify() {
  auto rows = cast<RankedTensorType>(getQueries().getType());
  if (failed(verifyAttend(*this, rows, getScaleAttr(), getSoftCapAttr())))
    return failure();
  if (rows.getDimSize(0) != 1)
    return emitOpError("(C6) expected exactly one row, got ") << rows;
  TileConfigAttr tile = getTileConfigAttr();
  int64_t group = rows.getDimSize(1) / getCache().getType().getHeads();
  if (tile && tile.getRows() != group)
    return emitOpError("(C7) expected a tile row for each of the ")
           << group << " query heads of a group, got " << tile.getRows();
  return success();
}

/// The queries of a launch that stands for a rope kernel, as below.
static RankedTensorType launchedRope(LaunchOp op, KernelAttr facts) {
  if (op.getInputs().size() != 4 || op.getOutputs().size() != 2)
    return {};
  auto queries = dyn_cast<RankedTensorType>(op.getInputs().front().getType());
  auto cache = dyn_cast<CacheType>(op.getInputs().back().getType());
  if (!queries || queries.getRank() != 3 || !cache ||
      cache.getDims() != facts.getHeadDim() ||
      cache.getElementType() != facts.getDtype() ||
      op.getOutputs().getTypes() != ArrayRef<Type>{queries, cache})
    return {};
  int64_t heads = queries.getDimSize(1);
  Type keys = rowsFor(queries, cache.getHeads(), cache);
  bool fits = isGrouped(heads, cache) &&
              queries == rowsFor(queries, heads, cache) &&
              op.getInputs()[1].getType() == keys &&
              op.getInputs()[2].getType() == keys;
  return fits ? queries : RankedTensorType();
}

/// The first operand of a launch that stands for `kind`, where all operands and
/// results are of the shapes that `facts` states; null otherwise.
static RankedTensorType launchedRows(LaunchOp op, KernelAttr facts) {
  if (facts.getKind() == KernelKind::Rope)
    return launchedRope(op, facts);
  bool append = facts.getKind() == KernelKind::Append;
  size_t inputs = append ? 3 : 2;
  if (op.getInputs().size() != inputs || op.getOutputs().size() != 1)
    return {};
  auto rows = dyn_cast<RankedTensorType>(op.getInputs().front().getType());
  auto cache = dyn_cast<CacheType>(op.getInputs().back().getType());
  if (!rows || rows.getRank() != 3 || !cache ||
      cache.getDims() != facts.getHeadDim() ||
      cache.getElementType() != facts.getDtype() ||
      op.getOutputs().front().getType() != (append ? Type(cache) : Type(rows)))
    return {};
  if (append && op.getInputs()[1].getType() != rows)
    return {};
  int64_t heads = rows.getDimSize(1);
  bool grouped = facts.getKind() == KernelKind::Decode
                     ? heads == cache.getHeads() * facts.getGroup()
                     : heads > 0 && heads % cache.getHeads() == 0;
  if (append ? heads != cache.getHeads() : !grouped)
    return {};
  return rows == rowsFor(rows, heads, cache) ? rows : RankedTensorType();
}

LogicalResult LaunchOp::verifySymbolUses(SymbolTableCollection &tables) {
  auto kernel =
      tables.lookupNearestSymbolFrom<ModuleOp>(*this, getKernelAttr());
  if (!kernel)
    return emitOpError("(C1) expected a kernel module named '")
           << getKernel() << "'";
  auto facts = kernel->getAttrOfType<KernelAttr>(kKernelAttrName);
  if (!facts)
    return emitOpError("(C1) expected '")
           << getKernel() << "' to have attribute '" << kKernelAttrName << "'";
  RankedTensorType rows = launchedRows(*this, facts);
  if (!rows) {
    InFlightDiagnostic diag =
        emitOpError("(C2) expected operands and results of a kernel ")
        << facts << ", got (" << getInputs().getTypes() << ") -> ("
        << getOutputs().getTypes() << ")";
    diag.attachNote(kernel.getLoc()) << "the kernel is here";
    return diag;
  }
  if (WindowAttr window = getWindowAttr()) {
    if (facts.getKind() != KernelKind::Prefill &&
        facts.getKind() != KernelKind::Decode)
      return emitOpError("(C3) expected no window on a launch of a kernel of "
                         "kind ")
             << stringifyKernelKind(facts.getKind()) << ", got " << window;
    int64_t spans = window.getSpans().size();
    if (spans != rows.getDimSize(1))
      return emitOpError("(C3) expected one span per query head (")
             << rows.getDimSize(1) << "), got " << spans;
  }
  std::optional<int64_t> layer = layerOf(*this);
  if (layer && !llvm::is_contained(facts.getLayers().asArrayRef(), *layer))
    return emitOpError("(C4) expected layer ")
           << *layer << " among the layers of '" << getKernel() << "', "
           << facts.getLayers();
  return success();
}
