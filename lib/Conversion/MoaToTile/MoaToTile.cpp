//===- MoaToTile.cpp - Operations to launches of shared kernels -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Finds the structure of each operation, builds one kernel for each structure,
// and leaves a launch where the operation stood.
//
//===----------------------------------------------------------------------===//

#include "BuildKernels.h"
#include "moa/Conversion/Passes.h"
#include "moa/Conversion/Support.h"

#include "mlir/IR/BuiltinOps.h"
#include "moa/abi/span.h"
#include "llvm/ADT/MapVector.h"

namespace moa {
#define GEN_PASS_DEF_CONVERTMOATOTILE
#include "moa/Conversion/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;

namespace {

/// A kernel and the layers that use it.
struct SharedKernel {
  KernelStructure structure;
  Location loc;
  SmallVector<int64_t> layers;
};

struct ConvertMoaToTile
    : public moa::impl::ConvertMoaToTileBase<ConvertMoaToTile> {
  void runOnOperation() override;
};

} // namespace

/// Append, rope and quantise kernels work row by row; their shape is a page.
static tile::ConfigAttr appendConfig(MLIRContext *ctx) {
  return tile::ConfigAttr::get(ctx, tile::Lanes::Dims, MOA_BLOCK_KEYS,
                               MOA_BLOCK_KEYS);
}

static FailureOr<KernelStructure> structureOf(Operation *op) {
  if (std::optional<std::string> reason = whyUnsupported(op))
    return op->emitOpError("cannot become a kernel: ") << *reason;
  MLIRContext *ctx = op->getContext();
  if (auto append = dyn_cast<CacheAppendOp>(op)) {
    CacheType cache = append.getCache().getType();
    return KernelStructure{KernelKind::Append, cache.getDims(), 1,
                           cache.getElementType(), appendConfig(ctx)};
  }
  if (auto append = dyn_cast<RopeAppendOp>(op)) {
    CacheType cache = append.getCache().getType();
    RopeAttr rope = append.getRope();
    return KernelStructure{
        KernelKind::Rope,
        cache.getDims(),
        1,
        cache.getElementType(),
        appendConfig(ctx),
        tile::RopeAttr::get(ctx,
                            static_cast<tile::RopeLayout>(rope.getLayout()),
                            rope.getRotaryDim())};
  }
  auto attend = cast<WindowedOpInterface>(op);
  TileConfigAttr choice = attend.getTileConfigAttr();
  if (!choice) {
    InFlightDiagnostic diag = op->emitOpError("expected a tile choice");
    diag.attachNote() << "moa-select-tile-config makes it";
    return diag;
  }
  auto config =
      tile::ConfigAttr::get(ctx, static_cast<tile::Lanes>(choice.getLanes()),
                            choice.getRows(), choice.getKeys());
  bool decode = attend.getKernelKind() == KernelKind::Decode;
  KernelStructure structure{attend.getKernelKind(),
                            attend.getCacheType().getDims(),
                            decode ? attend.getGroup() : 1,
                            attend.getCacheType().getElementType(), config};
  structure.kv8 = attend.getWindowAttr() && attend.getWindowAttr().hasKv8();
  structure.softCap = op->getAttrOfType<FloatAttr>("soft_cap");
  return structure;
}

/// What brings complete pages of `attend`'s cache to 8 bits.
static KernelStructure quantiseStructure(WindowedOpInterface attend) {
  CacheType cache = attend.getCacheType();
  return {KernelKind::Quantise, cache.getDims(), 1, cache.getElementType(),
          appendConfig(attend->getContext())};
}

/// Replaces `op` by a launch of the kernel named `name`.
static void launch(Operation *op, StringRef name) {
  OpBuilder b(op);
  WindowAttr window;
  CacheLayoutAttr layout;
  if (auto attend = dyn_cast<WindowedOpInterface>(op)) {
    window = attend.getWindowAttr();
    layout = attend.getLayoutAttr();
  }
  auto scale = op->getAttrOfType<FloatAttr>("scale");
  auto launch = LaunchOp::create(b, op->getLoc(), op->getResultTypes(),
                                 FlatSymbolRefAttr::get(b.getContext(), name),
                                 op->getOperands(), window, layout, scale);
  op->replaceAllUsesWith(launch);
  op->erase();
}

void ConvertMoaToTile::runOnOperation() {
  ModuleOp module = getOperation();
  llvm::MapVector<StringRef, SharedKernel> kernels;
  SmallVector<std::pair<Operation *, StringRef>> launches;
  MLIRContext *ctx = &getContext();

  WalkResult result = module.walk([&](Operation *op) -> WalkResult {
    if (!isa<WindowedOpInterface, CacheAppendOp, RopeAppendOp>(op))
      return WalkResult::advance();
    auto function = op->getParentOfType<func::FuncOp>();
    auto layer = function ? function->getAttrOfType<IntegerAttr>(kLayerAttrName)
                          : IntegerAttr();
    if (!layer)
      return op->emitOpError("expected to be in a function with attribute '")
             << kLayerAttrName << "'";
    FailureOr<KernelStructure> structure = structureOf(op);
    if (failed(structure))
      return failure();
    auto share = [&](const KernelStructure &wanted) {
      StringRef name = StringAttr::get(ctx, wanted.name()).getValue();
      SharedKernel &kernel =
          kernels.try_emplace(name, SharedKernel{wanted, op->getLoc(), {}})
              .first->second;
      if (!llvm::is_contained(kernel.layers, layer.getInt()))
        kernel.layers.push_back(layer.getInt());
      return std::make_pair(name, kernel.structure.config);
    };
    auto [name, config] = share(*structure);
    if (config != structure->config)
      return op->emitOpError("expected the tile choice of the other "
                             "operations that become '")
             << name << "', " << config << ", got " << structure->config;
    if (structure->kv8)
      share(quantiseStructure(cast<WindowedOpInterface>(op)));
    launches.emplace_back(op, name);
    return WalkResult::advance();
  });
  if (result.wasInterrupted())
    return signalPassFailure();

  OpBuilder b = OpBuilder::atBlockEnd(module.getBody());
  for (auto &[name, kernel] : kernels) {
    llvm::sort(kernel.layers);
    auto home = ModuleOp::create(b, kernel.loc, name);
    const KernelStructure &s = kernel.structure;
    RopeAttr rope;
    if (s.rope)
      rope = RopeAttr::get(ctx, static_cast<RopeLayout>(s.rope.getLayout()),
                           s.rope.getRotaryDim());
    home->setAttr(kKernelAttrName,
                  KernelAttr::get(ctx, s.kind, s.headDim, s.group, s.dtype,
                                  DenseI64ArrayAttr::get(ctx, kernel.layers),
                                  rope, s.kv8, s.softCap));
    OpBuilder inner = OpBuilder::atBlockEnd(home.getBody());
    buildKernel(inner, kernel.loc, s);
  }
  for (auto [op, name] : launches)
    launch(op, name);
}
