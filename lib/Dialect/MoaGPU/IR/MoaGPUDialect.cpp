//===- MoaGPUDialect.cpp - Registration, types, attributes ----------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Registers the GPU dialect and implements its types and attributes.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "mlir/Interfaces/FunctionInterfaces.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace moa::gpu;

#include "moa/Dialect/MoaGPU/IR/MoaGPUDialect.cpp.inc"
#include "moa/Dialect/MoaGPU/IR/MoaGPUEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "moa/Dialect/MoaGPU/IR/MoaGPUAttrs.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "moa/Dialect/MoaGPU/IR/MoaGPUTypes.cpp.inc"
#define GET_OP_CLASSES
#include "moa/Dialect/MoaGPU/IR/MoaGPUOps.cpp.inc"

void MoaGPUDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "moa/Dialect/MoaGPU/IR/MoaGPUAttrs.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "moa/Dialect/MoaGPU/IR/MoaGPUTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "moa/Dialect/MoaGPU/IR/MoaGPUOps.cpp.inc"
      >();
}

LogicalResult MoaGPUDialect::verifyOperationAttribute(Operation *op,
                                                      NamedAttribute attr) {
  auto function = dyn_cast<FunctionOpInterface>(op);
  if (attr.getName() == kLaunchAttrName &&
      !(function && !function.isExternal() && isa<LaunchAttr>(attr.getValue())))
    return op->emitOpError("(C1) expected '")
           << kLaunchAttrName
           << "' to be a #moa_gpu.launch on a function with a body, got "
           << attr.getValue();
  return success();
}

Type SharedType::parse(AsmParser &parser) {
  SmallVector<int64_t> shape;
  Type element;
  if (parser.parseLess())
    return {};
  llvm::SMLoc loc = parser.getCurrentLocation();
  if (parser.parseDimensionList(shape, /*allowDynamic=*/false) ||
      parser.parseType(element) || parser.parseGreater())
    return {};
  if (shape.size() != 2) {
    parser.emitError(loc) << "expected a shape of 2 dimensions, got "
                          << shape.size();
    return {};
  }
  return parser.getChecked<SharedType>(parser.getContext(), shape[0], shape[1],
                                       element);
}

void SharedType::print(AsmPrinter &printer) const {
  printer << '<' << getRows() << 'x' << getCols() << 'x' << getElementType()
          << '>';
}

LogicalResult SharedType::verify(function_ref<InFlightDiagnostic()> emitError,
                                 int64_t rows, int64_t cols, Type element) {
  const bool codes = element.isInteger(8);
  if (!element.isF32() && !element.isF16() && !element.isBF16() && !codes)
    return emitError()
           << "(C2) expected element type f32, f16, bf16 or i8, got "
           << element;
  const int64_t rowStep = element.isF32() ? 16 : 64;
  const int64_t panel = element.isF32() ? 32 : codes ? 128 : 64;
  if (rows >= rowStep && rows % rowStep == 0 && cols >= panel &&
      cols % panel == 0)
    return success();
  return emitError() << "(C1) expected rows and columns that are positive "
                        "multiples of "
                     << rowStep << " and " << panel << ", got " << rows << "x"
                     << cols;
}

LogicalResult RingType::verify(function_ref<InFlightDiagnostic()> emitError,
                               int64_t stages, SharedType tile, int64_t words) {
  if (stages < 1 || stages > 8)
    return emitError() << "(C1) expected 1 to 8 stages, got " << stages;
  if (words < 0 || words > 64 || words % 4)
    return emitError() << "(C2) expected a multiple of 4 words from 0 to 64, "
                          "got "
                       << words;
  if (tile.getElementBytes() != 2)
    return emitError() << "(C3) expected a tile of 16-bit elements, got "
                       << tile;
  return success();
}

LogicalResult AsyncType::verify(function_ref<InFlightDiagnostic()> emitError,
                                VectorType fragment) {
  if (fragment.getRank() != 1 || !fragment.getElementType().isF32())
    return emitError() << "(C1) expected a one-dimensional vector of f32, got "
                       << fragment;
  return success();
}

LogicalResult LaunchAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 int64_t threads, int64_t registers, int64_t,
                                 int64_t) {
  if (threads < 32 || threads > 1024 || threads % 32)
    return emitError() << "(C1) expected a multiple of 32 between 32 and 1024 "
                          "threads, got "
                       << threads;
  if (registers != 255 && (registers < 24 || registers > 255 || registers % 8))
    return emitError() << "(C2) expected 255 registers, or a multiple of 8 "
                          "between 24 and 248, got "
                       << registers;
  return success();
}
