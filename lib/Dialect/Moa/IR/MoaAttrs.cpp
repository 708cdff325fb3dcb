//===- MoaAttrs.cpp - Attributes of the moa dialect -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Syntax and verification of attributes. Messages start with the constraint's
// id in MoaAttrs.td.
//
//===----------------------------------------------------------------------===//

#include "moa/Dialect/Moa/IR/Moa.h"

#include "mlir/IR/Builders.h"
#include "mlir/IR/DialectImplementation.h"
#include "moa/Plan/Plan.h"
#include "moa/abi/kernel_args.h"
#include "llvm/ADT/TypeSwitch.h"

#include <charconv>
#include <iterator>

using namespace mlir;
using namespace moa;

using EmitError = function_ref<InFlightDiagnostic()>;

/// Parses `[beta *] N`.
static ParseResult parseSlope(AsmParser &parser, double &beta) {
  beta = 1;
  if (succeeded(parser.parseOptionalKeyword("N")))
    return success();
  return failure(parser.parseFloat(beta) || parser.parseStar() ||
                 parser.parseKeyword("N"));
}

/// Parses a rule: `alpha`, `[beta *] N`, or `alpha + [beta *] N`.
static FailureOr<SpanAttr> parseRule(AsmParser &parser) {
  int64_t alpha = 0;
  double beta = 0;
  OptionalParseResult hasAlpha = parser.parseOptionalInteger(alpha);
  if (hasAlpha.has_value() && failed(*hasAlpha))
    return failure();
  if (!hasAlpha.has_value() || succeeded(parser.parseOptionalPlus()))
    if (parseSlope(parser, beta))
      return failure();
  SpanAttr span =
      parser.getChecked<SpanAttr>(parser.getContext(), alpha, APFloat(beta));
  if (!span)
    return failure();
  return span;
}

/// Prints the shortest form that parses to the same rule: `N`, `-256 + N`,
/// `0.5 * N`, `512`.
static void printRule(AsmPrinter &printer, SpanAttr span) {
  double beta = span.getBeta();
  if (beta == 0) {
    printer << span.getAlpha();
    return;
  }
  if (span.getAlpha() != 0)
    printer << span.getAlpha() << " + ";
  if (beta != 1) {
    // Fixed notation, as the lexer wants a point; 330 digits hold any beta.
    char digits[400];
    std::to_chars_result end = std::to_chars(
        std::begin(digits), std::end(digits), beta, std::chars_format::fixed);
    printer << StringRef(digits, end.ptr - digits) << " * ";
  }
  printer << 'N';
}

/// Runs of equal elements, `[3 x A, B]`; `what` names what has one each.
template <typename Element, typename ParseElement>
static ParseResult parseRuns(AsmParser &parser, SmallVector<Element> &elements,
                             StringRef what, ParseElement parseElement) {
  auto parseRun = [&]() -> ParseResult {
    int64_t count = 1;
    llvm::SMLoc loc = parser.getCurrentLocation();
    OptionalParseResult counted = parser.parseOptionalInteger(count);
    if (counted.has_value() && (failed(*counted) || parser.parseKeyword("x")))
      return failure();
    if (count < 1 || count > 65536)
      return parser.emitError(loc)
             << "expected a run of 1 to 65536 " << what << ", got " << count;
    FailureOr<Element> element = parseElement();
    if (failed(element))
      return failure();
    elements.append(count, *element);
    return success();
  };
  return parser.parseCommaSeparatedList(AsmParser::Delimiter::Square, parseRun);
}

template <typename Element, typename PrintElement>
static void printRuns(AsmPrinter &printer, ArrayRef<Element> elements,
                      PrintElement printElement) {
  printer << '[';
  for (size_t i = 0; i < elements.size();) {
    size_t run = 1;
    while (i + run < elements.size() && elements[i + run] == elements[i])
      ++run;
    if (i)
      printer << ", ";
    if (run > 1)
      printer << run << " x ";
    printElement(elements[i]);
    i += run;
  }
  printer << ']';
}

/// Runs of equal rules: `[3 x (...), (...)]`.
static ParseResult parseSpanRuns(AsmParser &parser,
                                 SmallVector<SpanAttr> &spans) {
  return parseRuns(parser, spans, "heads", [&]() -> FailureOr<SpanAttr> {
    if (parser.parseLParen())
      return failure();
    FailureOr<SpanAttr> span = parseRule(parser);
    if (failed(span) || parser.parseRParen())
      return failure();
    return span;
  });
}

static void printSpanRuns(AsmPrinter &printer, ArrayRef<SpanAttr> spans) {
  printRuns(printer, spans, [&](SpanAttr span) {
    printer << '(';
    printRule(printer, span);
    printer << ')';
  });
}

/// Runs of equal formats: `[2 x e4m3, model]`.
static ParseResult parseKvRuns(AsmParser &parser, SmallVector<KvFormat> &kv) {
  return parseRuns(parser, kv, "KV heads", [&]() -> FailureOr<KvFormat> {
    StringRef name;
    llvm::SMLoc loc = parser.getCurrentLocation();
    if (parser.parseKeyword(&name))
      return failure();
    std::optional<KvFormat> format = symbolizeKvFormat(name);
    if (!format)
      return parser.emitError(loc)
             << "expected format model, e4m3 or int8, got " << name;
    return *format;
  });
}

static void printKvRuns(AsmPrinter &printer, ArrayRef<KvFormat> kv) {
  printRuns(printer, kv,
            [&](KvFormat format) { printer << stringifyKvFormat(format); });
}

#include "moa/Dialect/Moa/IR/MoaEnums.cpp.inc"
#define GET_ATTRDEF_CLASSES
#include "moa/Dialect/Moa/IR/MoaAttrs.cpp.inc"

void MoaDialect::registerAttributes() {
  addAttributes<
#define GET_ATTRDEF_LIST
#include "moa/Dialect/Moa/IR/MoaAttrs.cpp.inc"
      >();
}

bool moa::isSupportedHeadDim(int64_t dim) {
  return plan::isSupportedHeadDim(dim);
}

bool moa::isSoftCap(FloatAttr cap) {
  return cap.getType().isF32() && plan::isSoftCap(cap.getValueAsDouble());
}

static bool isElement(Type type) {
  return type.isF32() || type.isF16() || type.isBF16();
}

Attribute SpanAttr::parse(AsmParser &parser, Type) {
  if (parser.parseLess())
    return {};
  FailureOr<SpanAttr> span = parseRule(parser);
  if (failed(span) || parser.parseGreater())
    return {};
  return *span;
}

void SpanAttr::print(AsmPrinter &printer) const {
  printer << '<';
  printRule(printer, *this);
  printer << '>';
}

LogicalResult SpanAttr::verify(EmitError emitError, int64_t alpha,
                               APFloat betaValue) {
  if (&betaValue.getSemantics() != &APFloat::IEEEdouble())
    return emitError() << "(C1) expected beta to be a double";
  double beta = betaValue.convertToDouble();
  if (!(beta >= 0 && beta <= 1) || betaValue.isNegative())
    return emitError() << "(C1) expected beta between 0 and 1, got " << beta;
  if (alpha < -plan::kMaxAlpha || alpha > plan::kMaxAlpha)
    return emitError() << "(C2) expected alpha between -2^40 and 2^40, got "
                       << alpha;
  return success();
}

LogicalResult WindowAttr::verify(EmitError emitError, ArrayRef<SpanAttr> spans,
                                 int64_t sink, int64_t block, int64_t min,
                                 LengthRule, ArrayRef<KvFormat> kv,
                                 int64_t most) {
  if (spans.empty())
    return emitError() << "(C1) expected at least one span";
  if (sink < 0 || sink >= min || min > plan::kMaxSpanParameter)
    return emitError() << "(C2) expected 0 <= sink < min <= "
                       << plan::kMaxSpanParameter << ", got sink = " << sink
                       << ", min = " << min;
  if (block < 1 || block > plan::kMaxSpanParameter)
    return emitError() << "(C3) expected block between 1 and "
                       << plan::kMaxSpanParameter << ", got " << block;
  if (most < 0 || most > MOA_MOST_WINDOW || (most && sink))
    return emitError() << "(C5) expected most between 0 and "
                       << int64_t(MOA_MOST_WINDOW)
                       << " and no sink beside it, got most = " << most
                       << ", sink = " << sink;
  if (kv.empty())
    return success();
  if (spans.size() % kv.size())
    return emitError() << "(C4) expected a number of kv formats that divides "
                          "the "
                       << spans.size() << " spans, got " << kv.size();
  if (llvm::all_equal(kv) && kv.front() == KvFormat::Model)
    return emitError() << "(C4) expected a kv format of 8 bits, got "
                       << kv.size() << " x model; leave kv out";
  return success();
}

moa_span_rule WindowAttr::rule(int64_t head) const {
  SpanAttr span = getSpans()[head];
  return {span.getAlpha(),
          span.getBeta(),
          static_cast<int32_t>(getSink()),
          static_cast<int32_t>(getMin()),
          static_cast<int32_t>(getBlock()),
          static_cast<int32_t>(getLength()) + MOA_SPAN_MOST(getMost())};
}

/// Whether a head of this rule sees everything at every length.
static bool isDenseRule(SpanAttr span) {
  return (span.getBeta() == 1 && span.getAlpha() >= 0) ||
         span.getAlpha() >= plan::kMaxLength;
}

bool WindowAttr::isDense() const {
  return !getMost() && llvm::all_of(getSpans(), isDenseRule);
}

WindowAttr WindowAttr::getCanonical() const {
  SmallVector<SpanAttr> spans(getSpans());
  for (auto [head, span] : llvm::enumerate(spans)) {
    if (span.getBeta() == 0 && !isDenseRule(span)) {
      // At a length of at least alpha nothing but the rule decides.
      moa_span_rule constant = rule(head);
      int64_t value =
          moa_span(&constant, std::max<int64_t>(1, span.getAlpha()));
      span = SpanAttr::get(getContext(), value, 0.0);
    }
    if (isDenseRule(span))
      span = SpanAttr::get(getContext(), 0, 1.0);
  }
  return get(getContext(), spans, getSink(), getBlock(), getMin(), getLength(),
             getKv(), getMost());
}

LogicalResult ModelAttr::verify(EmitError emitError, int64_t layers,
                                int64_t qHeads, int64_t kvHeads,
                                int64_t headDim, Type dtype, int64_t maxLength,
                                FloatAttr softCap) {
  auto fits = [](int64_t size) { return size >= 1 && size <= 1 << 16; };
  if (!fits(layers) || !fits(qHeads) || !fits(kvHeads) || maxLength < 1 ||
      maxLength > plan::kMaxLength)
    return emitError() << "(C1) expected sizes between 1 and 65536 and "
                          "max_length between 1 and "
                       << plan::kMaxLength << ", got layers = " << layers
                       << ", q_heads = " << qHeads << ", kv_heads = " << kvHeads
                       << ", max_length = " << maxLength;
  if (qHeads % kvHeads || qHeads / kvHeads > MOA_MAX_GROUP)
    return emitError() << "(C2) expected q_heads to be 1 to " << MOA_MAX_GROUP
                       << " times kv_heads, got " << qHeads << " and "
                       << kvHeads;
  if (!isSupportedHeadDim(headDim))
    return emitError()
           << "(C3) expected head_dim 64, 80, 96, 128, 192 or 256, got "
           << headDim;
  if (!isElement(dtype))
    return emitError() << "(C4) expected dtype f32, f16 or bf16, got " << dtype;
  if (softCap && !isSoftCap(softCap))
    return emitError() << "(C5) expected a soft_cap of f32 between 2^-20 and "
                          "2^20, got "
                       << softCap;
  return success();
}

LogicalResult CacheLayoutAttr::verify(EmitError emitError, int64_t page,
                                      int64_t pageBytes,
                                      ArrayRef<DenseI64ArrayAttr> deciding,
                                      ArrayRef<int64_t> pages) {
  if (page != MOA_BLOCK_KEYS)
    return emitError() << "(C1) expected pages of " << MOA_BLOCK_KEYS
                       << " tokens, got " << page;
  if (pageBytes < 1)
    return emitError() << "(C2) expected positive page_bytes, got "
                       << pageBytes;
  for (auto [head, deciders] : llvm::enumerate(deciding))
    if (deciders.empty())
      return emitError() << "(C3) expected a deciding query head for KV head "
                         << head;
  if (!pages.empty() && pages.size() != deciding.size())
    return emitError() << "(C4) expected one page count per KV head ("
                       << deciding.size() << "), got " << pages.size();
  return success();
}

LogicalResult TileConfigAttr::verify(EmitError emitError, Lanes, int64_t rows,
                                     int64_t keys) {
  if (rows < 1 || rows > 256)
    return emitError() << "(C1) expected rows between 1 and 256, got " << rows;
  if (keys != MOA_BLOCK_KEYS && keys != 2 * MOA_BLOCK_KEYS)
    return emitError() << "(C2) expected keys = " << MOA_BLOCK_KEYS << " or "
                       << 2 * MOA_BLOCK_KEYS << ", got " << keys;
  return success();
}

LogicalResult RopeAttr::verify(EmitError emitError, RopeLayout,
                               int64_t rotaryDim) {
  if (rotaryDim < 2 || rotaryDim % 2)
    return emitError() << "(C1) expected an even rotary_dim of at least 2, got "
                       << rotaryDim;
  return success();
}

LogicalResult KernelAttr::verify(EmitError emitError, KernelKind kind,
                                 int64_t headDim, int64_t group, Type dtype,
                                 DenseI64ArrayAttr layers, RopeAttr rope,
                                 bool kv8, FloatAttr softCap) {
  if (headDim < 1 || group < 1 || group > MOA_MAX_GROUP)
    return emitError()
           << "(C1) expected a positive head_dim and a group of 1 to "
           << MOA_MAX_GROUP << ", got " << headDim << " and " << group;
  if (!isElement(dtype))
    return emitError() << "(C2) expected dtype f32, f16 or bf16, got " << dtype;
  if (layers.empty() ||
      llvm::adjacent_find(layers.asArrayRef(), std::greater_equal<>()) !=
          layers.asArrayRef().end())
    return emitError() << "(C3) expected increasing layers, got " << layers;
  if (kind != KernelKind::Rope && rope)
    return emitError() << "(C4) expected no rope on a kernel of kind "
                       << stringifyKernelKind(kind) << ", got " << rope;
  if (kind == KernelKind::Rope && (!rope || rope.getRotaryDim() > headDim))
    return emitError() << "(C4) expected a rope of at most " << headDim
                       << " elements on a rope kernel, got " << rope;
  if (kv8 && kind != KernelKind::Prefill && kind != KernelKind::Decode)
    return emitError() << "(C5) expected no kv8 on a kernel of kind "
                       << stringifyKernelKind(kind);
  if ((kv8 || kind == KernelKind::Quantise) && dtype.isF32())
    return emitError() << "(C5) expected dtype f16 or bf16 beside 8 bits, got "
                       << dtype;
  bool attends = kind == KernelKind::Prefill || kind == KernelKind::Decode;
  if (softCap && !attends)
    return emitError() << "(C6) expected no soft_cap on a kernel of kind "
                       << stringifyKernelKind(kind) << ", got " << softCap;
  if (softCap && !isSoftCap(softCap))
    return emitError() << "(C6) expected a soft_cap of f32 between 2^-20 and "
                          "2^20, got "
                       << softCap;
  return success();
}
