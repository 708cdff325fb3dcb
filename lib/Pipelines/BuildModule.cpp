//===- BuildModule.cpp - The module that compilation starts from ----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of BuildModule.h.
//
//===----------------------------------------------------------------------===//

#include "moa/Pipelines/BuildModule.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/IR/Builders.h"
#include "moa/Dialect/Moa/Transforms/Passes.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace moa;

namespace {

/// Types and attributes that all layers share.
struct LayerBuilder {
  OpBuilder &b;
  Location loc;
  const plan::ModelShape &shape;
  Type dtype;
  const Phases &phases;

  RankedTensorType rows(int64_t tokens, int64_t heads) const {
    return RankedTensorType::get({tokens, heads, shape.headDim}, dtype);
  }
  CacheType cache() const {
    return CacheType::get(b.getContext(), shape.kvHeads, shape.headDim, dtype);
  }
  /// Null where scores have none.
  FloatAttr softCap() const {
    return shape.softCap ? FloatAttr::get(b.getF32Type(), shape.softCap)
                         : FloatAttr();
  }
  void buildFunction(int64_t layer, KernelKind kind, WindowAttr window) const;
  void buildRope(int64_t layer) const;
};

} // namespace

/// One function: the cache takes the new keys and values where the phase is
/// compiled, then the new rows attend.
void LayerBuilder::buildFunction(int64_t layer, KernelKind kind,
                                 WindowAttr window) const {
  int64_t tokens = kind == KernelKind::Decode ? 1 : ShapedType::kDynamic;
  SmallVector<Type> arguments = {rows(tokens, shape.qHeads)};
  if (phases.append)
    arguments.append(2, rows(tokens, shape.kvHeads));
  arguments.push_back(cache());
  SmallVector<Type> results = {arguments.front()};
  if (phases.append)
    results.push_back(cache());

  std::string name =
      llvm::formatv("layer_{0}_{1}", layer, stringifyKernelKind(kind));
  OpBuilder::InsertionGuard guard(b);
  auto function =
      func::FuncOp::create(b, loc, name, b.getFunctionType(arguments, results));
  function->setAttr(kLayerAttrName, b.getI64IntegerAttr(layer));
  Block *body = function.addEntryBlock();
  b.setInsertionPointToStart(body);
  Value queries = body->getArgument(0);
  Value kv = body->getArguments().back();
  if (phases.append)
    kv = CacheAppendOp::create(b, loc, kv.getType(), body->getArgument(1),
                               body->getArgument(2), kv);
  Value out;
  if (kind == KernelKind::Decode)
    out = DecodeOp::create(b, loc, queries.getType(), queries, kv, window,
                           /*layout=*/nullptr, /*tile_config=*/nullptr,
                           /*scale=*/nullptr, softCap());
  else
    out = AttentionOp::create(b, loc, queries.getType(), queries, kv, window,
                              /*layout=*/nullptr, /*tile_config=*/nullptr,
                              /*scale=*/nullptr, softCap());
  SmallVector<Value> returned = {out};
  if (phases.append)
    returned.push_back(kv);
  func::ReturnOp::create(b, loc, returned);
}

/// What goes before attention where calls ask for a rotation: a function of its
/// own, as the append of the others serves calls that do not.
void LayerBuilder::buildRope(int64_t layer) const {
  Type keys = rows(ShapedType::kDynamic, shape.kvHeads);
  SmallVector<Type> arguments = {rows(ShapedType::kDynamic, shape.qHeads), keys,
                                 keys, cache()};
  SmallVector<Type> results = {arguments.front(), cache()};
  OpBuilder::InsertionGuard guard(b);
  auto function =
      func::FuncOp::create(b, loc, llvm::formatv("layer_{0}_rope", layer).str(),
                           b.getFunctionType(arguments, results));
  function->setAttr(kLayerAttrName, b.getI64IntegerAttr(layer));
  Block *body = function.addEntryBlock();
  b.setInsertionPointToStart(body);
  auto rope = RopeAttr::get(b.getContext(), phases.rope->layout,
                            phases.rope->rotaryDim.value_or(shape.headDim));
  auto append = RopeAppendOp::create(b, loc, results, body->getArgument(0),
                                     body->getArgument(1), body->getArgument(2),
                                     body->getArgument(3), rope);
  func::ReturnOp::create(b, loc, append.getResults());
}

OwningOpRef<ModuleOp> moa::buildModule(MLIRContext &context,
                                       const plan::Plan &plan,
                                       const plan::ModelShape &shape,
                                       Type dtype, const Phases &phases,
                                       StringRef planName) {
  context.loadDialect<MoaDialect, func::FuncDialect>();
  OpBuilder b(&context);
  Location loc = FileLineColLoc::get(&context, planName, 1, 1);
  OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
  (*module)->setAttr(kPlanIdAttrName, b.getStringAttr(plan.idText()));
  b.setInsertionPointToEnd(module->getBody());
  LayerBuilder layers{b, loc, shape, dtype, phases};
  (*module)->setAttr(kModelAttrName,
                     ModelAttr::get(&context, shape.layers, shape.qHeads,
                                    shape.kvHeads, shape.headDim, dtype,
                                    shape.maxLength, layers.softCap()));
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    WindowAttr window = planWindow(&context, plan, layer, shape.kvHeads);
    if (phases.prefill)
      layers.buildFunction(layer, KernelKind::Prefill, window);
    if (phases.decode)
      layers.buildFunction(layer, KernelKind::Decode, window);
    if (phases.rope)
      layers.buildRope(layer);
  }
  return module;
}
