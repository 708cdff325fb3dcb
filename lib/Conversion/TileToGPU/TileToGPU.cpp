//===- TileToGPU.cpp - Tile kernels to GPU kernels ------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Recognises a tile kernel and hands its facts to the builder of the kernel
// that the chip runs for it.
//
//===----------------------------------------------------------------------===//

#include "Kernels.h"
#include "moa/Conversion/Passes.h"
#include "moa/Conversion/Support.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/Target/Chip.h"
#include "moa/abi/gpu_args.h"
#include "llvm/Support/MathExtras.h"

namespace moa {
#define GEN_PASS_DEF_CONVERTMOATILETOGPU
#include "moa/Conversion/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using moa::tile::ItemKind;

namespace {

struct ConvertMoaTileToGPU
    : public moa::impl::ConvertMoaTileToGPUBase<ConvertMoaTileToGPU> {
  using ConvertMoaTileToGPUBase::ConvertMoaTileToGPUBase;
  void runOnOperation() override;
};

} // namespace

static uint32_t dtypeOf(Type element) {
  return element.isF32()   ? MOA_DTYPE_F32
         : element.isF16() ? MOA_DTYPE_F16
                           : MOA_DTYPE_BF16;
}

/// Whether warpgroups of 64 rows can take the item, and the rings find room.
static LogicalResult expectHopperShape(func::FuncOp tileKernel,
                                       const KernelForm &form,
                                       const GpuChip &chip) {
  int64_t padded = llvm::alignTo(form.headDim, MOA_GPU_PANEL);
  int64_t bytes = 2 * padded * (form.rows + 4 * form.keys) +
                  int64_t(sizeof(moa_gpu_prefill_item));
  // A third warpgroup has registers for small outputs alone.
  bool two = form.rows == 2 * MOA_PREFILL_ROWS;
  bool three = form.rows == 3 * MOA_PREFILL_ROWS && padded <= MOA_GPU_PANEL;
  if ((two || three) && bytes <= chip.maxSharedBytes)
    return success();
  InFlightDiagnostic diag =
      tileKernel.emitOpError("expected ")
      << 2 * MOA_PREFILL_ROWS << " rows (or " << 3 * MOA_PREFILL_ROWS
      << " of head sizes up to " << MOA_GPU_PANEL << ") and at most "
      << chip.maxSharedBytes
      << " bytes of shared memory for queries and two stages of keys and "
         "values, got "
      << form.rows << " rows of head size " << form.headDim << " and " << bytes
      << " bytes";
  diag.attachNote() << "moa-select-tile-config=chip=" << chip.name
                    << " chooses what fits";
  return diag;
}

/// Whether four or eight warps of 16 rows take the item, and tiles find room.
static LogicalResult expectAmpereShape(func::FuncOp tileKernel,
                                       const KernelForm &form,
                                       const GpuChip &chip) {
  AmpereShape shape = prefillAmpereShape(form, chip.maxSharedBytes);
  int64_t bytes = prefillAmpereBytes(form, {shape.keys, /*places=*/2});
  bool rows =
      form.rows == MOA_PREFILL_ROWS || form.rows == 2 * MOA_PREFILL_ROWS;
  if (rows && form.keys == MOA_BLOCK_KEYS && bytes <= chip.maxSharedBytes)
    return success();
  InFlightDiagnostic diag =
      tileKernel.emitOpError("expected ")
      << MOA_PREFILL_ROWS << " or " << 2 * MOA_PREFILL_ROWS << " rows, "
      << MOA_BLOCK_KEYS << " keys and at most " << chip.maxSharedBytes
      << " bytes of shared memory for queries, keys and values, got "
      << form.rows << " rows, " << form.keys << " keys and " << bytes
      << " bytes";
  diag.attachNote() << "moa-select-tile-config=chip=" << chip.name
                    << " chooses what fits";
  return diag;
}

/// Sets the columns of a decode kernel: `wanted`, or, for 0, as many as its
/// group fills tiles of 8.
static LogicalResult setColumns(func::FuncOp tileKernel, int64_t wanted,
                                KernelForm &form) {
  if (form.rows > MOA_MAX_GROUP)
    return tileKernel.emitOpError("has ")
           << form.rows << " heads in a group, expected at most "
           << MOA_MAX_GROUP;
  form.columns = wanted ? wanted : moa_gpu_decode_columns(form.rows);
  if (form.columns % 8 == 0 && form.columns >= form.rows &&
      form.columns <= MOA_MAX_GROUP)
    return success();
  return tileKernel.emitOpError("has ")
         << form.rows << " heads in a group, expected columns=" << form.columns
         << " to be a multiple of 8 from that number to " << MOA_MAX_GROUP;
}

/// Builds the GPU kernel beside `tileKernel`, under its name; one with columns
/// of its own has their number in its name.
static LogicalResult convert(func::FuncOp tileKernel, const GpuChip &chip,
                             int64_t columns) {
  FailureOr<KernelForm> form = matchKernelForm(tileKernel);
  if (failed(form))
    return failure();
  if (std::optional<std::string> reason = whyUnsupportedOnGpu(
          static_cast<uint32_t>(form->kind), form->headDim,
          dtypeOf(form->element), form->kv8, std::max(columns, form->rows)))
    return tileKernel.emitOpError("has no kernel for ")
           << chip.name << ": " << *reason;
  // f32 has no warpgroup products: one kernel serves all chips.
  const bool hopper =
      chip.archSpecific && chip.capability == 90 && !form->element.isF32();
  if (form->kind == ItemKind::Prefill &&
      failed(hopper ? expectHopperShape(tileKernel, *form, chip)
                    : expectAmpereShape(tileKernel, *form, chip)))
    return failure();
  std::string name = tileKernel.getName().str();
  if (form->kind == ItemKind::Decode) {
    if (failed(setColumns(tileKernel, columns, *form)))
      return failure();
    if (columns)
      name += "_c" + std::to_string(columns);
  }
  OpBuilder builder(tileKernel);
  Location loc = tileKernel.getLoc();
  if (form->kind == ItemKind::Append)
    buildAppend(builder, loc, name, *form);
  else if (form->kind == ItemKind::Quantise)
    buildQuantise(builder, loc, name, *form);
  else if (form->kind == ItemKind::Rope)
    buildRope(builder, loc, name, *form);
  else if (form->kind == ItemKind::Decode && hopper)
    buildDecodeHopper(builder, loc, name, *form);
  else if (form->kind == ItemKind::Decode)
    buildDecodeAmpere(builder, loc, name, *form, chip.maxSharedBytes);
  else if (!hopper)
    buildPrefillAmpere(builder, loc, name, *form,
                       prefillAmpereShape(*form, chip.maxSharedBytes));
  else
    buildPrefillHopper(builder, loc, name, *form);
  tileKernel.erase();
  return success();
}

void ConvertMoaTileToGPU::runOnOperation() {
  const GpuChip *target = findGpuChip(chip);
  if (!target) {
    getOperation().emitError("unknown GPU '")
        << chip << "', expected one of " << gpuChipNames();
    return signalPassFailure();
  }
  for (auto kernel :
       llvm::make_early_inc_range(getOperation().getOps<func::FuncOp>()))
    if (kernel->hasAttr(tile::kConfigAttrName) &&
        failed(convert(kernel, *target, columns)))
      return signalPassFailure();
}
