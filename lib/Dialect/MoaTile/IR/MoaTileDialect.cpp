//===- MoaTileDialect.cpp - Registration, types, attributes ---------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Registers the tile dialect and implements its types and attributes: the
// `RxC` shape syntax and the constraints on sizes and element types.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/MoaTile/IR/MoaTile.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;
using namespace moa::tile;

#include "moa/Dialect/MoaTile/IR/MoaTileDialect.cpp.inc"
#include "moa/Dialect/MoaTile/IR/MoaTileEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileAttrs.cpp.inc"
#define GET_TYPEDEF_CLASSES
#include "moa/Dialect/MoaTile/IR/MoaTileTypes.cpp.inc"

void MoaTileDialect::initialize() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "moa/Dialect/MoaTile/IR/MoaTileAttrs.cpp.inc"
      >();
  addTypes<
#define GET_TYPEDEF_LIST
#include "moa/Dialect/MoaTile/IR/MoaTileTypes.cpp.inc"
      >();
  addOperations<
#define GET_OP_LIST
#include "moa/Dialect/MoaTile/IR/MoaTileOps.cpp.inc"
      >();
}

/// Parses `RxC`, with a trailing `x` when an element type follows.
static ParseResult parseShape(AsmParser &parser, int64_t &rows, int64_t &cols,
                              bool withElementType) {
  SmallVector<int64_t> shape;
  llvm::SMLoc loc = parser.getCurrentLocation();
  if (parser.parseDimensionList(shape, /*allowDynamic=*/false,
                                /*withTrailingX=*/withElementType))
    return failure();
  if (shape.size() != 2)
    return parser.emitError(loc)
           << "expected a shape of 2 dimensions, got " << shape.size();
  rows = shape[0];
  cols = shape[1];
  return success();
}

Type TileType::parse(AsmParser &parser) {
  int64_t rows, cols;
  Type element;
  if (parser.parseLess() || parseShape(parser, rows, cols, true) ||
      parser.parseType(element) || parser.parseGreater())
    return {};
  return parser.getChecked<TileType>(parser.getContext(), rows, cols, element);
}

void TileType::print(AsmPrinter &printer) const {
  printer << '<' << getRows() << 'x' << getCols() << 'x' << getElementType()
          << '>';
}

LogicalResult TileType::verify(function_ref<InFlightDiagnostic()> emitError,
                               int64_t rows, int64_t cols, Type element) {
  if (rows < 1 || cols < 1)
    return emitError() << "(C1) expected positive tile sizes, got " << rows
                       << "x" << cols;
  if (!element.isF32() && !element.isF16() && !element.isBF16())
    return emitError() << "(C2) expected element type f32, f16 or bf16, got "
                       << element;
  return success();
}

Type StateType::parse(AsmParser &parser) {
  int64_t rows, dims;
  if (parser.parseLess() || parseShape(parser, rows, dims, false) ||
      parser.parseGreater())
    return {};
  return parser.getChecked<StateType>(parser.getContext(), rows, dims);
}

void StateType::print(AsmPrinter &printer) const {
  printer << '<' << getRows() << 'x' << getDims() << '>';
}

LogicalResult StateType::verify(function_ref<InFlightDiagnostic()> emitError,
                                int64_t rows, int64_t dims) {
  if (rows < 1 || dims < 1)
    return emitError() << "(C1) expected positive state sizes, got " << rows
                       << "x" << dims;
  return success();
}

LogicalResult ConfigAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                                 Lanes, int64_t rows, int64_t keys) {
  if (rows < 1 || rows > 256)
    return emitError() << "(C1) expected rows between 1 and 256, got " << rows;
  if (keys != 64 && keys != 128)
    return emitError() << "(C2) expected keys = 64 (one page) or 128, got "
                       << keys;
  return success();
}

LogicalResult RopeAttr::verify(function_ref<InFlightDiagnostic()> emitError,
                               RopeLayout, int64_t rotaryDim) {
  if (rotaryDim < 2 || rotaryDim % 2)
    return emitError() << "(C1) expected an even rotary_dim of at least 2, got "
                       << rotaryDim;
  return success();
}
