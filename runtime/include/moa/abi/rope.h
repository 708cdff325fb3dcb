//===- rope.h - Arithmetic of rotary embeddings ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// From a pair's frequency and a position to cosine and sine, as every rope
// kernel computes them. C11, header only.
//
// Angles are kept in turns. A pair turns by frequency / (2 pi) turns a token;
// whole turns do not count, so a 64-bit fraction of a turn, multiplied by the
// position modulo 2^64, has the angle with an error below 2^-32 turns at any
// position of 31 bits. Its upper 32 bits are split into quarter turns and the
// rest, in [-1/2, 1/2) of a quarter turn, which goes through polynomials in
// f32: cosine and sine have an absolute error below 1e-7.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_ROPE_H
#define MOA_ABI_ROPE_H

#include <math.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Which elements of a head are a pair, of `rotary_dim` that are rotated.
enum {
  MOA_ROPE_HALF = 0, ///< i and i + rotary_dim / 2 (GPT-NeoX, Llama in HF).
  MOA_ROPE_INTERLEAVED = 1 ///< 2 i and 2 i + 1 (GPT-J, Llama as published).
};

/// With w the square of u, sin(pi/2 u) = u * (S0 + w * (S1 + ...)) and
/// cos(pi/2 u) = 1 + w * (C0 + w * (C1 + ...)), for |u| <= 1/2.
#define MOA_ROPE_SIN {1.5707963f, -0.64596105f, 0.079659864f, -0.004554165f}
#define MOA_ROPE_COS {-1.2337005f, 0.25366852f, -0.020855254f, 0.0008935732f}
#define MOA_ROPE_TERMS 4

/// Turns a token, modulo 1, in units of 2^-64. `frequency` is finite, in
/// radians a token.
static inline uint64_t moa_rope_turns(double frequency) {
  long double turns =
      (long double)frequency / 6.283185307179586476925286766559005768L;
  turns -= floorl(turns);
  turns *= 18446744073709551616.0L;
  return turns < 18446744073709551616.0L ? (uint64_t)turns : 0;
}

/// Cosine and sine of a pair's angle at a position of at least 0.
static inline void moa_rope_angle(uint64_t turns, int32_t position,
                                  float *cosine, float *sine) {
  static const float sinTerms[MOA_ROPE_TERMS] = MOA_ROPE_SIN;
  static const float cosTerms[MOA_ROPE_TERMS] = MOA_ROPE_COS;
  const uint32_t phase = (uint32_t)(turns * (uint64_t)position >> 32);
  const uint32_t quarter = (phase + (1u << 29)) >> 30;
  const float u = (float)(int32_t)(phase - (quarter << 30)) * 0x1p-30f;
  const float w = u * u;
  float s = sinTerms[MOA_ROPE_TERMS - 1], c = cosTerms[MOA_ROPE_TERMS - 1];
  for (int i = MOA_ROPE_TERMS - 2; i >= 0; --i) {
    s = fmaf(s, w, sinTerms[i]);
    c = fmaf(c, w, cosTerms[i]);
  }
  s *= u;
  c = fmaf(c, w, 1.0f);
  const float x = quarter & 1 ? s : c, y = quarter & 1 ? c : s;
  *cosine = (quarter + 1) & 2 ? -x : x;
  *sine = quarter & 2 ? -y : y;
}

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_ROPE_H
