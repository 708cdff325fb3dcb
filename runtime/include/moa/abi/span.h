//===- span.h - Window arithmetic, the only place it is written -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Span, window start, key-block ranges and resident pages as functions of a
// head's rule. Compiler, runtime and (by binding) Python call these functions;
// none of them repeats the arithmetic. C11, header only.
//
// Vocabulary. Positions count tokens from 0 and are absolute. `n` is the length
// N that a rule is evaluated at. A block is MOA_BLOCK_KEYS keys at an aligned
// position; a page holds one block of one KV head, or two of them in 8 bits.
//
// Query row i of a head sees key j iff
//     j <= i  and  (j < sink  or  j >= moa_window_start(rule, i, n)).
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ABI_SPAN_H
#define MOA_ABI_SPAN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/// Keys of one block, tokens of one page.
#define MOA_BLOCK_KEYS 64

/// Which N a row uses.
enum {
  /// N is set per request (prompt + generation budget) and only ever rises.
  MOA_LENGTH_REQUEST = 0,
  /// Row i uses N = i + 1; window starts are the running maximum over rows.
  MOA_LENGTH_ROW = 1
};

/// The rule of one query head: span = alpha + beta * N, clamped and rounded.
/// 32 bytes, the layout that artifacts store.
typedef struct moa_span_rule {
  int64_t alpha;    ///< Tokens; may be negative.
  double beta;      ///< In [0, 1].
  int32_t sink;     ///< First tokens that every row sees; counted in the span.
  int32_t min_span; ///< Tokens; at least sink + 1.
  int32_t round_to; ///< Spans are rounded up to a multiple of this; >= 1.
  /// MOA_LENGTH_REQUEST or MOA_LENGTH_ROW; and, for a layer whose model has a
  /// window of its own, MOA_SPAN_MOST of that (since 1.5). Read it with
  /// moa_length_rule_of and moa_span_most.
  int32_t length_rule;
} moa_span_rule;

/// Most tokens of a span, as added to `length_rule`: 1 to MOA_MOST_WINDOW. No
/// span exceeds it, rounded up or not. Such a rule has no sink.
#define MOA_SPAN_MOST(tokens) ((int32_t)(tokens) << 1)
#define MOA_MOST_WINDOW (1 << 20)

/// MOA_LENGTH_* of a rule.
static inline int32_t moa_length_rule_of(const moa_span_rule *rule) {
  return rule->length_rule & 1;
}

/// Most tokens of a rule's span; 0 where nothing bounds it.
static inline int64_t moa_span_most(const moa_span_rule *rule) {
  return rule->length_rule >> 1;
}

/// trunc(alpha + beta * n) in float64, toward zero.
static inline int64_t moa_span_raw(const moa_span_rule *rule, int64_t n) {
  // Not contracted to a fused multiply-add, which would round differently from
  // the plan's definition.
#if defined(__NVPTX__)
  const double scaled = __nvvm_mul_rn_d(rule->beta, (double)n);
#else
  volatile double scaled = rule->beta * (double)n;
#endif
  return (int64_t)((double)rule->alpha + scaled);
}

/// The span in tokens at length `n`, sink included.
static inline int64_t moa_span(const moa_span_rule *rule, int64_t n) {
  int64_t span = moa_span_raw(rule, n);
  if (span > n)
    span = n;
  if (span < rule->min_span)
    span = rule->min_span;
  int64_t rest = span % rule->round_to;
  if (rest)
    span += rule->round_to - rest;
  const int64_t most = moa_span_most(rule);
  return most && span > most ? most : span;
}

/// The local window in tokens at length `n`: what the span leaves beside the
/// sink. The query's own token counts.
static inline int64_t moa_span_local(const moa_span_rule *rule, int64_t n) {
  return moa_span(rule, n) - rule->sink;
}

/// Largest n' < n whose span is smaller than that of `n`, or 0 if there is
/// none. Solved in closed form, then corrected for rounding.
static inline int64_t moa_span_previous_plateau(const moa_span_rule *rule,
                                                int64_t n) {
  int64_t below = moa_span(rule, n) - 1; // looking for span(n') <= below
  if (rule->min_span > below || n <= 1)
    return 0;
  int64_t target = below - below % rule->round_to;
  if (moa_span(rule, 1) > target)
    return 0;
  int64_t guess = target;
  if (rule->beta > 0) {
    double solved = ((double)target + 1.0 - (double)rule->alpha) / rule->beta;
    if (solved > (double)(n - 1))
      solved = (double)(n - 1);
    if (solved > (double)guess)
      guess = (int64_t)solved;
  }
  if (guess > n - 1)
    guess = n - 1;
  if (guess < 1)
    guess = 1;
  while (guess > 1 && moa_span(rule, guess) > target)
    --guess;
  while (guess + 1 < n && moa_span(rule, guess + 1) <= target)
    ++guess;
  return guess;
}

/// First key of row `i`'s local window (never above `i`, never negative).
/// Under MOA_LENGTH_REQUEST the row uses length `n`; under MOA_LENGTH_ROW `n`
/// is ignored and the result never decreases with `i`: spans grow by one
/// rounding step at a time, the last one cut short where a window of the
/// model's bounds them, and a plateau is at least that long, so the running
/// maximum is reached either at `i` or at the end of the plateau before it.
static inline int64_t moa_window_start(const moa_span_rule *rule, int64_t i,
                                       int64_t n) {
  int64_t start;
  if (moa_length_rule_of(rule) == MOA_LENGTH_ROW) {
    start = i + 1 - moa_span_local(rule, i + 1);
    int64_t before = moa_span_previous_plateau(rule, i + 1);
    if (before > 0 && before - moa_span_local(rule, before) > start)
      start = before - moa_span_local(rule, before);
  } else {
    start = i + 1 - moa_span_local(rule, n);
  }
  return start > 0 ? start : 0;
}

/// Least row in [0, most] whose window starts at or behind `position`; `most`
/// if there is none.
static inline int64_t moa_first_row_from(const moa_span_rule *rule,
                                         int64_t position, int64_t n,
                                         int64_t most) {
  int64_t low = 0;
  while (low < most) {
    int64_t middle = low + (most - low) / 2;
    if (moa_window_start(rule, middle, n) >= position)
      most = middle;
    else
      low = middle + 1;
  }
  return low;
}

/// The row whose window decides what is held after `seen` tokens: the next one,
/// or, where the newest `margin` rows may be taken back, the next after that.
static inline int64_t moa_deciding_row(int64_t seen, int64_t margin) {
  return seen > margin ? seen - margin : 0;
}

/// Whether row `i` sees key `j`, given the row's window start.
static inline int moa_visible(int64_t i, int64_t j, int64_t start,
                              int64_t sink) {
  return j <= i && (j < sink || j >= start);
}

/// Visible keys of row `i`, given its window start.
static inline int64_t moa_visible_count(int64_t i, int64_t start,
                                        int64_t sink) {
  int64_t seen = i + 1;
  if (start <= sink)
    return seen;
  return (seen - start) + (sink < seen ? sink : seen);
}

/// Key blocks that rows [i0, i1] of one head touch, in four runs that differ in
/// the mask they need. Half-open block ranges; a run may be empty.
typedef struct moa_block_ranges {
  int32_t sink_end;   ///< [0, sink_end): sink only; mask j < sink.
  int32_t edge_begin; ///< [edge_begin, full_begin): left edge; window mask.
  int32_t full_begin; ///< [full_begin, diag_begin): every key visible.
  int32_t diag_begin; ///< [diag_begin, end): causal and window mask.
  int32_t end;
} moa_block_ranges;

/// Ranges for rows [i0, i1] whose window starts run from `start0` (row i0) to
/// `start1` (row i1, the larger). Every visible (row, key) pair is covered by
/// exactly one block, and blocks without a visible pair are left out.
static inline moa_block_ranges moa_block_ranges_of(int64_t i0, int64_t i1,
                                                   int64_t start0,
                                                   int64_t start1,
                                                   int64_t sink) {
  const int64_t b = MOA_BLOCK_KEYS;
  moa_block_ranges r;
  int64_t edge = start0 / b;
  int64_t sink_end = (sink + b - 1) / b;
  int64_t diag = (i0 + 1) / b;
  int64_t full = (start1 + b - 1) / b;
  if (sink_end > edge)
    sink_end = edge;
  if (full > diag)
    full = diag;
  if (full < edge)
    full = edge;
  r.sink_end = (int32_t)sink_end;
  r.edge_begin = (int32_t)edge;
  r.full_begin = (int32_t)full;
  r.diag_begin = (int32_t)(diag < full ? full : diag);
  r.end = (int32_t)(i1 / b + 1);
  return r;
}

/// Pages that a KV head keeps after `seen` tokens when the deciding row's
/// window starts at `next_start` (the smallest over the query heads of its
/// group).
typedef struct moa_resident {
  int32_t sink_pages;   ///< Pages [0, sink_pages) stay for the sink.
  int32_t window_begin; ///< Pages [window_begin, window_end) stay for windows.
  int32_t window_end;
  int32_t kv8_end; ///< Of those, [window_begin, kv8_end) are kept in 8 bits; 0
                   ///< for a KV head that keeps none so.
} moa_resident;

static inline moa_resident moa_resident_pages(int64_t seen, int64_t next_start,
                                              int64_t sink) {
  const int64_t b = MOA_BLOCK_KEYS;
  moa_resident r;
  int64_t end = (seen + b - 1) / b;
  int64_t sinks = ((sink < seen ? sink : seen) + b - 1) / b;
  int64_t begin = next_start / b;
  if (begin < sinks)
    begin = sinks;
  if (begin > end)
    begin = end;
  r.sink_pages = (int32_t)sinks;
  r.window_begin = (int32_t)begin;
  r.window_end = (int32_t)end;
  r.kv8_end = 0;
  return r;
}

/// The same for a KV head that keeps 8 bits: all but the sink's pages and those
/// from the one of row `deciding - 1` on, the newest that stays (see
/// moa_deciding_row).
static inline moa_resident moa_resident_kv8(moa_resident r, int64_t deciding) {
  int64_t end = deciding > 0 ? (deciding - 1) / MOA_BLOCK_KEYS : 0;
  r.kv8_end = end > r.window_begin ? (int32_t)end : r.window_begin;
  return r;
}

/// First block of the window that is kept as it came.
static inline int32_t moa_resident_full_begin(const moa_resident *r) {
  return r->kv8_end > r->window_begin ? r->kv8_end : r->window_begin;
}

/// Pages for blocks [begin, end) in 8 bits: blocks 2 p and 2 p + 1 share one.
static inline int64_t moa_kv8_pages(int64_t begin, int64_t end) {
  return end > begin ? (end + 1) / 2 - begin / 2 : 0;
}

/// Number of pages in `r`.
static inline int64_t moa_resident_count(const moa_resident *r) {
  return (int64_t)r->sink_pages + moa_kv8_pages(r->window_begin, r->kv8_end) +
         (r->window_end - moa_resident_full_begin(r));
}

/// Bytes of one page: K [64][D] and V [64][D].
static inline int64_t moa_page_bytes(int64_t head_dim, int64_t element_bytes) {
  return 2 * MOA_BLOCK_KEYS * head_dim * element_bytes;
}

#ifdef __cplusplus
}
#endif

#endif // MOA_ABI_SPAN_H
