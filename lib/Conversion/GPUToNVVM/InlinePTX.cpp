//===- InlinePTX.cpp - Every line of PTX that is written by hand ----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A whole tile product is one piece of assembly (fence, products, commit), so
// that nothing can come between; registers in flight are tied through waits.
//
//===----------------------------------------------------------------------===//

#include "InlinePTX.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/Support/FormatVariadic.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace moa::gpu;
using namespace moa::gpu::ptx;

/// Makes one assembly operation with `results` results of `type`.
static Values emit(AsmBuilder &b, StringRef text, StringRef constraints,
                   ValueRange operands, Type type = {}, int64_t results = 0) {
  MLIRContext *ctx = b.getContext();
  SmallVector<Type> types;
  if (results == 1)
    types.push_back(type);
  if (results > 1)
    types.push_back(LLVM::LLVMStructType::getLiteral(
        ctx, SmallVector<Type>(results, type)));
  auto assembly = LLVM::InlineAsmOp::create(
      b, types, operands, text, constraints, /*has_side_effects=*/true,
      /*is_align_stack=*/false, LLVM::tailcallkind::TailCallKind::None,
      LLVM::AsmDialectAttr::get(ctx, LLVM::AsmDialect::AD_ATT), ArrayAttr());
  Values values;
  if (results == 1)
    values.push_back(assembly.getResult(0));
  for (int64_t i = 0; results > 1 && i < results; ++i)
    values.push_back(LLVM::ExtractValueOp::create(b, assembly.getResult(0), i));
  return values;
}

/// "$first, ..., $first+count-1".
static std::string operandList(int64_t first, int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i)
    text += llvm::formatv("{0}${1}", i ? ", " : "", first + i);
  return text;
}

/// Constraints of `count` f32 results, each tied to an operand when `tied`.
static std::string resultConstraints(int64_t count, bool tied) {
  std::string text;
  for (int64_t i = 0; i < count; ++i)
    text += i ? ",=f" : "=f";
  for (int64_t i = 0; tied && i < count; ++i)
    text += llvm::formatv(",{0}", i);
  return text;
}

static StringRef nameOf(Type element) {
  return element.isBF16() ? "bf16" : "f16";
}

void ptx::waitBarrier(AsmBuilder &b, Value address, Value parity) {
  emit(b,
       "{ .reg .pred done; again: "
       "mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1; "
       "@!done bra again; }",
       "r,r,~{memory}", {address, parity});
}

void ptx::arriveBarrier(AsmBuilder &b, Value address) {
  emit(b, "mbarrier.arrive.shared::cta.b64 _, [$0];", "r,~{memory}", address);
}

Value ptx::countArrival(AsmBuilder &b, Value address) {
  return emit(b, "atom.acq_rel.gpu.global.add.u32 $0, [$1], 1;",
              "=r,l,~{memory}", address, b.getI32Type(), 1)
      .front();
}

Value ptx::copy(AsmBuilder &b, Value value) {
  return emit(b, "mov.b32 $0, $1;", "=r,r", value, b.getI32Type(), 1).front();
}

void ptx::waitLaunches(AsmBuilder &b) {
  emit(b, "griddepcontrol.wait;", "~{memory}", {});
}

void ptx::launchNext(AsmBuilder &b) {
  emit(b, "griddepcontrol.launch_dependents;", "~{memory}", {});
}

Value ptx::transpose(AsmBuilder &b, Value pair) {
  return emit(b, "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r", pair,
              b.getI32Type(), 1)
      .front();
}

/// With two constants, which ptxas gives an instruction each unless it is told.
Value ptx::bitwise(AsmBuilder &b, Value x, uint32_t y, uint32_t z,
                   uint8_t table) {
  return emit(b,
              llvm::formatv("lop3.b32 $0, $1, {0:x}, {1:x}, {2:x};", y, z,
                            uint32_t(table))
                  .str(),
              "=r,r", x, b.getI32Type(), 1)
      .front();
}

/// Descriptor steps count 16 bytes. Along the depth of a K-major operand 16
/// elements are 32 bytes of a 128-byte row, four of them a panel.
static int64_t depthStep(int64_t k, int64_t panelBytes) {
  return k / 4 * (panelBytes / 16) + k % 4 * 2;
}

Values ptx::startScores(AsmBuilder &b, const Product &shape, Value a,
                        Value bDescriptor) {
  int64_t registers = shape.columns / 2;
  std::string text = "{ .reg .b64 da, db; wgmma.fence.sync.aligned; ";
  llvm::raw_string_ostream os(text);
  StringRef type = nameOf(shape.element);
  for (int64_t k = 0; k < shape.depth / 16; ++k)
    os << llvm::formatv(
        "add.s64 da, ${0}, {1}; add.s64 db, ${2}, {3}; "
        "wgmma.mma_async.sync.aligned.m64n{4}k16.f32.{5}.{5} {{{6}}, da, db, "
        "{7}, 1, 1, 0, 0; ",
        registers, depthStep(k, shape.aPanelBytes), registers + 1,
        depthStep(k, shape.bPanelBytes), shape.columns, type,
        operandList(0, registers), k ? 1 : 0);
  os << "wgmma.commit_group.sync.aligned; }";
  return emit(b, text, resultConstraints(registers, false) + ",l,l,~{memory}",
              {a, bDescriptor}, b.getF32Type(), registers);
}

Values ptx::startAccumulate(AsmBuilder &b, const Product &shape, ValueRange a,
                            Value bDescriptor, ValueRange sums) {
  int64_t registers = shape.columns / 2, pairs = a.size();
  int64_t firstA = 2 * registers;
  std::string text = "{ .reg .b64 db; wgmma.fence.sync.aligned; ";
  llvm::raw_string_ostream os(text);
  StringRef type = nameOf(shape.element);
  // 16 rows of 128 bytes a step; B's rows lie along the depth (transposed).
  for (int64_t k = 0; k < shape.depth / 16; ++k)
    os << llvm::formatv(
        "add.s64 db, ${0}, {1}; "
        "wgmma.mma_async.sync.aligned.m64n{2}k16.f32.{3}.{3} {{{4}}, {{{5}}, "
        "db, 1, 1, 1, 1; ",
        firstA + pairs, k * 128, shape.columns, type, operandList(0, registers),
        operandList(firstA + 4 * k, 4));
  os << "wgmma.commit_group.sync.aligned; }";
  std::string constraints = resultConstraints(registers, true);
  for (int64_t i = 0; i < pairs; ++i)
    constraints += ",r";
  Values operands(sums);
  operands.append(a.begin(), a.end());
  operands.push_back(bDescriptor);
  return emit(b, text, constraints + ",l,~{memory}", operands, b.getF32Type(),
              registers);
}

Values ptx::waitProducts(AsmBuilder &b, int64_t pending, ValueRange values) {
  return emit(
      b, llvm::formatv("wgmma.wait_group.sync.aligned {0};", pending).str(),
      resultConstraints(values.size(), true) + ",~{memory}", values,
      b.getF32Type(), values.size());
}
