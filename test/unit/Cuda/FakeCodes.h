//===- FakeCodes.h - 8-bit codes of the fake driver -------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// What codes of abi/kernel_args.h stand for and which stands for a value, by
// their definition.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TEST_UNIT_CUDA_FAKECODES_H
#define MOA_TEST_UNIT_CUDA_FAKECODES_H

#include "moa/abi/kernel_args.h"

#include <algorithm>
#include <cmath>

namespace moa::fake {

/// In units of the scale.
inline double valueOf(uint8_t code, int32_t format) {
  if (format == MOA_KV_INT8)
    return code - 128;
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  const double value = exponent ? std::ldexp(8 + mantissa, exponent - 10)
                                : std::ldexp(mantissa, -9);
  return code & 0x80 ? -value : value;
}

/// The nearest code, of two the even one.
inline uint8_t codeOf(double value, int32_t format) {
  if (format == MOA_KV_INT8)
    return uint8_t(std::nearbyint(std::clamp(value, -127.0, 127.0)) + 128);
  uint8_t best = 0;
  const double magnitude = std::min(std::fabs(value), 448.0);
  for (int code = 0; code < 127; ++code) {
    const double error = std::fabs(valueOf(uint8_t(code), format) - magnitude),
                 least = std::fabs(valueOf(best, format) - magnitude);
    if (error < least || (error == least && code % 2 == 0))
      best = uint8_t(code);
  }
  return std::signbit(value) ? best | 0x80 : best;
}

} // namespace moa::fake

#endif // MOA_TEST_UNIT_CUDA_FAKECODES_H
