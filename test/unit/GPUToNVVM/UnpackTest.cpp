//===- UnpackTest.cpp - 8-bit codes to 16-bit floats ----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The arithmetic of kernels on numbers: every code in every place of a register
// becomes exactly what it stands for.
//
//===----------------------------------------------------------------------===//

#include "moa/Conversion/Unpack.h"

#include "llvm/ADT/APFloat.h"
#include "gtest/gtest.h"

using llvm::APFloat;
using llvm::APInt;

namespace {

/// PTX's operations, by their definitions.
struct Machine {
  using Value = uint32_t;

  Value word(uint32_t bits) const { return bits; }
  Value left(Value x, int by) const { return x << by; }
  Value right(Value x, int by) const { return x >> by; }
  Value mask(Value x, uint32_t bits) const { return x & bits; }
  Value maskOr(Value x, uint32_t bits, uint32_t more) const {
    return (x & bits) | more;
  }
  Value maskXor(Value x, uint32_t bits, uint32_t more) const {
    return (x & bits) ^ more;
  }
  Value permute(Value x, Value y, uint32_t places) const {
    const uint64_t bytes = uint64_t(y) << 32 | x;
    Value result = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t place = places >> (4 * i) & 15;
      uint32_t byte = bytes >> (8 * (place & 7)) & 0xff;
      if (place & 8) // The byte's sign, eight times.
        byte = byte & 0x80 ? 0xff : 0;
      result |= byte << (8 * i);
    }
    return result;
  }
  APFloat half(Value pair, int i) const {
    return APFloat(*semantics, APInt(16, pair >> (16 * i) & 0xffff));
  }
  Value fma(Value x, uint32_t y, Value z) const {
    Value result = 0;
    for (int i : {0, 1}) {
      APFloat sum = half(x, i);
      EXPECT_EQ(sum.fusedMultiplyAdd(half(y, i), half(z, i),
                                     APFloat::rmNearestTiesToEven),
                APFloat::opOK)
          << "not exact";
      result |= Value(sum.bitcastToAPInt().getZExtValue()) << (16 * i);
    }
    return result;
  }

  const llvm::fltSemantics *semantics;
};

class Unpack : public testing::TestWithParam<bool> {
protected:
  /// Calls `body` with a code, its neighbours being others, and the float that
  /// `unpack` makes of it.
  template <typename Unpack, typename Body>
  void forCodes(Unpack unpack, Body body) {
    const bool isBF16 = GetParam();
    Machine machine{isBF16 ? &APFloat::BFloat() : &APFloat::IEEEhalf()};
    moa::Unpacker<Machine> unpacker(machine, isBF16);
    for (uint32_t code = 0; code < 256; ++code)
      for (int place = 0; place < 4; ++place)
        for (uint32_t others : {0x00000000u, 0xffffffffu, 0x7f807f80u}) {
          const uint32_t own = 0xffu << (8 * place);
          const uint32_t codes = (others & ~own) | code << (8 * place);
          body(
              uint8_t(code),
              machine.half(unpack(unpacker, codes, place % 2 == 1), place / 2));
        }
  }
};

TEST_P(Unpack, Int8) {
  forCodes([](auto &unpacker, uint32_t codes,
              bool odd) { return unpacker.int8(codes, odd); },
           [](uint8_t code, const APFloat &found) {
             EXPECT_EQ(found.convertToDouble(), double(code) - 128);
           });
}

TEST_P(Unpack, E4M3) {
  forCodes([](auto &unpacker, uint32_t codes,
              bool odd) { return unpacker.e4m3(codes, odd); },
           [](uint8_t code, const APFloat &found) {
             APFloat expected(APFloat::Float8E4M3FN(), APInt(8, code));
             if (expected.isNaN()) // Read as the number that its bits would be.
               EXPECT_EQ(found.convertToDouble(), code & 0x80 ? -480 : 480);
             else
               EXPECT_EQ(found.convertToDouble(), expected.convertToDouble());
             EXPECT_EQ(found.isNegative(), (code & 0x80) != 0);
           });
}

INSTANTIATE_TEST_SUITE_P(, Unpack, testing::Bool(), [](const auto &info) {
  return info.param ? "BF16" : "F16";
});

} // namespace
