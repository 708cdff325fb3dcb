//===- Unpack.h - 8-bit codes to 16-bit floats, by pairs --------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The arithmetic that makes floats of the codes in a register, on whatever has
// its few operations: a builder of kernels, or a test that tries all codes. All
// of it is exact, and the same on every GPU from sm_80 on. Operations on bits
// have half the rate of others there, so each pair takes as few as can be.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_UNPACK_H
#define MOA_CONVERSION_UNPACK_H

#include <cstdint>

namespace moa {

/// `Machine` has a type Value, of 32 bits, and
///
///   word(bits)             a constant
///   left(x, by)            shifts
///   right(x, by)
///   mask(x, bits)          x & bits
///   maskOr(x, bits, more)  (x & bits) | more
///   maskXor(x, bits, more) (x & bits) ^ more
///   permute(x, y, places)  PTX's prmt
///   fma(x, y, z)           of pairs of floats; `y` are bits of one
template <typename Machine> class Unpacker {
public:
  using Value = typename Machine::Value;

  Unpacker(Machine machine, bool isBF16) : on(machine), isBF16(isBF16) {}

  /// Bytes 0 and 2 of `codes`, or 1 and 3. A code's exponent and mantissa go to
  /// the lowest places of the exponent and the highest of the mantissa: that is
  /// its value less the difference of the exponents' biases, subnormal codes
  /// too.
  Value e4m3(Value codes, bool odd) {
    // Bits that the mantissa has more than a code's 3, and 2 to the power of
    // 127 - 7, or 15 - 7.
    const int shift = (isBF16 ? 7 : 10) - 3;
    const uint32_t factor = isBF16 ? 0x7b807b80 : 0x5c005c00;
    // Each byte, and its sign eight times above it.
    Value wide = on.permute(codes, codes, odd ? 0xb391 : 0xa280);
    Value bits = on.mask(on.left(wide, shift), 0x80008000 | 0x7f007fu << shift);
    return on.fma(bits, factor, on.word(0x80008000));
  }

  /// A number in the lowest places of a mantissa, less what is behind it.
  Value int8(Value codes, bool odd) {
    if (!isBF16) { // 1024 + code - 1152.
      Value sum = on.permute(codes, on.word(0x64006400), odd ? 0x7371 : 0x7270);
      return on.fma(sum, 0x3c003c00, on.word(0xe480e480));
    }
    // The mantissa has room for 7 bits: 128 + those, less 4 times 32 where the
    // eighth is set, or 64.
    if (odd)
      codes = on.right(codes, 8);
    Value low = on.maskOr(codes, 0x007f007f, 0x43004300);
    Value less = on.maskXor(codes, 0x00800080, 0x42804280);
    return on.fma(less, 0xc080c080, low);
  }

private:
  Machine on;
  const bool isBF16;
};

} // namespace moa

#endif // MOA_CONVERSION_UNPACK_H
