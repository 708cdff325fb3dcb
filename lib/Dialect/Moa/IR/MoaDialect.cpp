//===- MoaDialect.cpp - Registration, types, aliases ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Registers the moa dialect. Windows, models and layouts print as aliases, so
// that a layer's function fits on a screen.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace moa;

#include "moa/Dialect/Moa/IR/MoaDialect.cpp.inc"
#include "moa/Dialect/Moa/IR/MoaInterfaces.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "moa/Dialect/Moa/IR/MoaTypes.cpp.inc"

namespace {

struct MoaAsmInterface : public OpAsmDialectInterface {
  using OpAsmDialectInterface::OpAsmDialectInterface;

  AliasResult getAlias(Attribute attr, llvm::raw_ostream &os) const override {
    return llvm::TypeSwitch<Attribute, AliasResult>(attr)
        .Case(
            [&](WindowAttr) { return os << "window", AliasResult::FinalAlias; })
        .Case([&](ModelAttr) { return os << "model", AliasResult::FinalAlias; })
        .Case([&](CacheLayoutAttr) {
          return os << "layout", AliasResult::FinalAlias;
        })
        .Default(AliasResult::NoAlias);
  }
};

} // namespace

void MoaDialect::initialize() {
  registerAttributes();
  addTypes<
#define GET_TYPEDEF_LIST
#include "moa/Dialect/Moa/IR/MoaTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "moa/Dialect/Moa/IR/MoaOps.cpp.inc"
      >();
  addInterfaces<MoaAsmInterface>();
}

Type CacheType::parse(AsmParser &parser) {
  SmallVector<int64_t> shape;
  Type element;
  llvm::SMLoc loc = parser.getCurrentLocation();
  if (parser.parseLess() ||
      parser.parseDimensionList(shape, /*allowDynamic=*/false) ||
      parser.parseType(element) || parser.parseGreater())
    return {};
  if (shape.size() != 2) {
    parser.emitError(loc) << "expected KV heads x head size, got "
                          << shape.size() << " sizes";
    return {};
  }
  return parser.getChecked<CacheType>(parser.getContext(), shape[0], shape[1],
                                      element);
}

void CacheType::print(AsmPrinter &printer) const {
  printer << '<' << getHeads() << 'x' << getDims() << 'x' << getElementType()
          << '>';
}

LogicalResult CacheType::verify(function_ref<InFlightDiagnostic()> emitError,
                                int64_t heads, int64_t dims, Type element) {
  if (heads < 1 || dims < 1)
    return emitError() << "(C1) expected positive sizes, got " << heads << "x"
                       << dims;
  if (!element.isF32() && !element.isF16() && !element.isBF16())
    return emitError() << "(C2) expected element type f32, f16 or bf16, got "
                       << element;
  return success();
}
