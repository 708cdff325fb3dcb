//===- KernelTable.cpp - From a tile-level module to contents -------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads geometry, rules and kernels off the module that the tile level leaves:
// nested kernel modules and the launches that use them.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/Artifact.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "moa/Dialect/Moa/IR/Moa.h"
#include "moa/abi/kernel_args.h"
#include "moa/abi/rope.h"
#include "llvm/ADT/StringExtras.h"

using namespace mlir;
using namespace moa;

static_assert(uint32_t(KernelKind::Prefill) == MOA_KERNEL_PREFILL &&
                  uint32_t(KernelKind::Decode) == MOA_KERNEL_DECODE &&
                  uint32_t(KernelKind::Append) == MOA_KERNEL_APPEND &&
                  uint32_t(KernelKind::Rope) == MOA_KERNEL_ROPE &&
                  uint32_t(KernelKind::Quantise) == MOA_KERNEL_QUANTISE &&
                  uint32_t(KvFormat::E4M3) == MOA_KV_E4M3 &&
                  uint32_t(KvFormat::Int8) == MOA_KV_INT8 &&
                  uint32_t(RopeLayout::Half) == MOA_ROPE_HALF &&
                  uint32_t(RopeLayout::Interleaved) == MOA_ROPE_INTERLEAVED,
              "kinds, formats and layouts are stored as they are numbered");

static uint32_t dtypeCode(Type type) {
  return type.isF32()   ? MOA_DTYPE_F32
         : type.isF16() ? MOA_DTYPE_F16
                        : MOA_DTYPE_BF16;
}

/// 0 for none.
static float capOf(FloatAttr softCap) {
  return softCap ? softCap.getValue().convertToFloat() : 0;
}

/// Fills geometry and plan id from the module's attributes.
static LogicalResult readModel(ModuleOp module, ArtifactContents &contents) {
  auto model = module->getAttrOfType<ModelAttr>(kModelAttrName);
  if (!model)
    return module.emitOpError("expected attribute '")
           << kModelAttrName << "', found none";
  contents.layers = model.getLayers();
  contents.qHeads = model.getQHeads();
  contents.kvHeads = model.getKvHeads();
  contents.headDim = model.getHeadDim();
  contents.dtype = dtypeCode(model.getDtype());
  contents.maxLength = model.getMaxLength();
  contents.softCap = capOf(model.getSoftCap());
  auto id = module->getAttrOfType<StringAttr>(kPlanIdAttrName);
  std::string digest;
  if (!id || id.size() != 64 || !llvm::tryGetFromHex(id.getValue(), digest))
    return module.emitOpError("expected attribute '")
           << kPlanIdAttrName << "' with 64 hexadecimal digits";
  llvm::copy(digest, contents.planId.begin());
  contents.layerTable.assign(contents.layers,
                             {MOA_NO_KERNEL, MOA_NO_KERNEL, MOA_NO_KERNEL,
                              MOA_NO_KERNEL, MOA_NO_KERNEL, MOA_NO_KERNEL});
  return success();
}

/// Stores the rules of one layer's window, or checks that they are those the
/// layer's other launches have.
static LogicalResult readWindow(LaunchOp launch, int64_t layer,
                                SmallVectorImpl<WindowAttr> &windows,
                                ArtifactContents &contents) {
  WindowAttr window = launch.getWindowAttr();
  if (!window)
    return success();
  if (window.getSpans().size() != contents.qHeads)
    return launch.emitOpError("expected one span per query head (")
           << contents.qHeads << "), got " << window.getSpans().size();
  if (window.hasKv8() && window.getKv().size() != contents.kvHeads)
    return launch.emitOpError("expected one kv format per KV head (")
           << contents.kvHeads << "), got " << window.getKv().size();
  if (windows[layer] && windows[layer] != window)
    return launch.emitOpError("expected the window of the other launches of "
                              "layer ")
           << layer << ", " << windows[layer] << ", got " << window;
  windows[layer] = window;
  return success();
}

static LogicalResult readLaunch(LaunchOp launch, int64_t layer,
                                const llvm::StringMap<uint32_t> &indices,
                                ArtifactContents &contents) {
  auto kernel = indices.find(launch.getKernel());
  if (kernel == indices.end())
    return launch.emitOpError("expected the name of a module with '")
           << kKernelAttrName << "', got '" << launch.getKernel() << "'";
  moa_artifact_layer &entry = contents.layerTable[layer];
  uint32_t kind = contents.kernels[kernel->second].kind;
  uint32_t &slot = kind == MOA_KERNEL_PREFILL  ? entry.prefill
                   : kind == MOA_KERNEL_DECODE ? entry.decode
                   : kind == MOA_KERNEL_ROPE   ? entry.rope
                                               : entry.append;
  if (slot != MOA_NO_KERNEL && slot != kernel->second)
    return launch.emitOpError("expected one kernel a layer and kind, got '")
           << contents.kernels[slot].name << "' and '" << launch.getKernel()
           << "' in layer " << layer;
  slot = kernel->second;
  return success();
}

FailureOr<ArtifactContents> moa::collectKernelTable(ModuleOp module) {
  ArtifactContents contents;
  if (failed(readModel(module, contents)))
    return failure();

  llvm::StringMap<uint32_t> indices;
  for (auto nested : module.getOps<ModuleOp>()) {
    auto facts = nested->getAttrOfType<KernelAttr>(kKernelAttrName);
    if (!facts)
      continue;
    ArtifactKernel kernel;
    kernel.name = nested.getName().value_or("").str();
    kernel.kind = uint32_t(facts.getKind());
    kernel.dtype = dtypeCode(facts.getDtype());
    kernel.headDim = facts.getHeadDim();
    kernel.group = facts.getGroup();
    kernel.kv8 = facts.getKv8();
    bool attends = facts.getKind() == KernelKind::Prefill ||
                   facts.getKind() == KernelKind::Decode;
    if (attends && capOf(facts.getSoftCap()) != contents.softCap)
      return nested.emitOpError("expected the soft cap of '")
             << kModelAttrName << "', " << contents.softCap
             << " (0: none), got " << capOf(facts.getSoftCap());
    if (RopeAttr rope = facts.getRope())
      kernel.rotation = moa_artifact_rotation(uint32_t(rope.getLayout()),
                                              uint32_t(rope.getRotaryDim()));
    llvm::ArrayRef<int64_t> layers = facts.getLayers().asArrayRef();
    kernel.layers.assign(layers.begin(), layers.end());
    // Nothing launches it: the runtime does when a page is complete.
    if (facts.getKind() == KernelKind::Quantise)
      for (int64_t layer : kernel.layers) {
        if (layer < 0 || layer >= int64_t(contents.layers))
          return nested.emitOpError("expected layers below ")
                 << contents.layers << ", got " << layer;
        contents.layerTable[layer].quantise = contents.kernels.size();
      }
    indices.try_emplace(kernel.name, contents.kernels.size());
    contents.kernels.push_back(std::move(kernel));
  }

  SmallVector<WindowAttr> windows(contents.layers);
  for (auto function : module.getOps<func::FuncOp>()) {
    auto number = function->getAttrOfType<IntegerAttr>(kLayerAttrName);
    if (!number)
      continue;
    int64_t layer = number.getInt();
    if (layer < 0 || layer >= int64_t(contents.layers))
      return function.emitOpError("expected a layer below ")
             << contents.layers << ", got " << layer;
    WalkResult result = function.walk([&](LaunchOp launch) -> WalkResult {
      if (failed(readLaunch(launch, layer, indices, contents)) ||
          failed(readWindow(launch, layer, windows, contents)))
        return WalkResult::interrupt();
      return WalkResult::advance();
    });
    if (result.wasInterrupted())
      return failure();
  }

  for (auto [layer, window] : llvm::enumerate(windows)) {
    if (!window)
      return module.emitOpError("expected a launch with a window in layer ")
             << layer << ", found none; compile prefill or decode";
    for (uint32_t head = 0; head < contents.qHeads; ++head)
      contents.rules.push_back(window.rule(head));
    for (uint32_t head = 0; head < contents.kvHeads; ++head)
      contents.kvFormats.push_back(uint8_t(window.kvFormat(head)));
  }
  contents.lengthRule = moa_length_rule_of(&contents.rules.front());
  return contents;
}

size_t moa::addPrepareKernel(ArtifactContents &contents) {
  const size_t index = contents.kernels.size();
  ArtifactKernel kernel;
  kernel.name = "prepare";
  kernel.kind = MOA_KERNEL_PREPARE;
  kernel.dtype = contents.dtype;
  kernel.headDim = contents.headDim;
  for (auto [number, layer] : llvm::enumerate(contents.layerTable)) {
    if (layer.decode == MOA_NO_KERNEL)
      continue;
    layer.prepare = index;
    kernel.layers.push_back(number);
  }
  contents.kernels.push_back(std::move(kernel));
  return index;
}
