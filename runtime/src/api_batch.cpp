//===- api_batch.cpp ------------------------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The C ABI of batches. No exception leaves this file.
//
//===----------------------------------------------------------------------===//

#include "api_support.h"

#include <cmath>

namespace moa::rt {

Status scaleOf(const Module &module, bool given, float scale, float &out) {
  out = given ? scale
              : 1.0f / std::sqrt(static_cast<float>(module.geometry.headDim));
  if (!std::isfinite(out))
    return error(MOA_INVALID_ARGUMENT, "scale is ", out,
                 ", expected a finite number");
  return ok();
}

} // namespace moa::rt

using namespace moa::rt;

/// The cache of a batch, or null for none.
static Cache *ownerOf(moa_batch *batch) {
  return batch ? &unwrap(batch)->owner() : nullptr;
}

extern "C" {

moa_status *moa_batch_create(moa_cache *cache, const moa_batch_options *options,
                             moa_batch **out) {
  return guard([&]() -> Status {
    if (!cache || !options || !out)
      return missing(!cache ? "cache" : !options ? "options" : "out");
    moa_batch_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_batch_options"));
    Cache &c = *cache->cache;
    const int64_t longest = c.module.geometry.maxLength;
    if (o.max_length == 0)
      o.max_length = longest;
    if (o.max_tokens == 0)
      o.max_tokens = 1;
    if (o.max_sequences < 1 || o.max_sequences > MOA_MAX_BATCH)
      return error(MOA_INVALID_ARGUMENT, "max_sequences is ", o.max_sequences,
                   ", expected 1 to ", MOA_MAX_BATCH);
    if (o.max_tokens > MOA_GPU_STEP_TOKENS)
      return error(MOA_INVALID_ARGUMENT, "max_tokens is ", o.max_tokens,
                   ", expected at most ", MOA_GPU_STEP_TOKENS,
                   "; pass longer chunks to moa_attend");
    if (o.max_length < 1 || o.max_length > longest)
      return error(MOA_OUT_OF_RANGE, "max_length is ", o.max_length,
                   ", expected 1 to the artifact's ", longest,
                   "; compile with a larger --max-length");
    BatchShape shape;
    shape.sequences = o.max_sequences;
    shape.tokens = static_cast<int32_t>(o.max_tokens);
    shape.blocks = static_cast<int32_t>((o.max_length + MOA_BLOCK_KEYS - 1) /
                                        MOA_BLOCK_KEYS);
    auto batch = std::make_unique<Batch>(c, shape);
    MOA_RT_TRY(batch->open());
    c.batches.push_back(std::move(batch));
    *out = reinterpret_cast<moa_batch *>(c.batches.back().get());
    return ok();
  });
}

void moa_batch_destroy(moa_batch *batch) {
  if (!batch)
    return;
  unwrap(batch)->owner().destroy(*unwrap(batch));
}

moa_status *moa_batch_get_info(const moa_batch *batch, moa_batch_info *info) {
  return guard([&]() -> Status {
    if (!batch)
      return missing("batch");
    moa_batch_info full = {};
    full.replays = unwrap(batch)->replays();
    full.open = unwrap(batch)->isOpen();
    return writeInfo(full, info, "moa_batch_info");
  });
}

moa_status *moa_batch_begin(moa_batch *batch, const moa_batch_step *step) {
  return observe(ownerOf(batch), "batch_begin", [&](Span &span) -> Status {
    if (!batch || !step)
      return missing(!batch ? "batch" : "step");
    moa_batch_step s;
    MOA_RT_TRY(readOptions(step, s, "moa_batch_step"));
    const int64_t tokens = s.tokens ? s.tokens : 1;
    span.arg("sequences", static_cast<int64_t>(s.count));
    span.arg("rows",
             static_cast<int64_t>(s.count * static_cast<uint64_t>(tokens)));
    return unwrap(batch)->begin(
        reinterpret_cast<Sequence *const *>(s.sequences), s.count, tokens,
        s.stream);
  });
}

moa_status *moa_batch_attend(moa_batch *batch,
                             const moa_batch_attend_options *options) {
  return observe(ownerOf(batch), "batch_attend", [&](Span &span) -> Status {
    if (!batch || !options)
      return missing(!batch ? "batch" : "options");
    moa_batch_attend_options o;
    MOA_RT_TRY(readOptions(options, o, "moa_batch_attend_options"));
    span.arg("layer", o.layer);
    StepCall call;
    MOA_RT_TRY(scaleOf(unwrap(batch)->owner().module, o.has_scale != 0, o.scale,
                       call.scale));
    call.layer = o.layer;
    call.stream = o.stream;
    auto tensor = [](const moa_batch_tensor &t) -> StepTensor {
      return {t.data, t.sequence_stride, t.token_stride, t.head_stride};
    };
    call.q = tensor(o.q);
    call.k = tensor(o.k);
    call.v = tensor(o.v);
    call.out = tensor(o.out);
    MOA_RT_TRY(unwrap(batch)->attend(call));
    ++unwrap(batch)->owner().counters.batch_attend_calls;
    return ok();
  });
}

void moa_batch_end(moa_batch *batch) {
  if (!batch)
    return;
  Span span(ownerOf(batch)->trace, "batch_end");
  unwrap(batch)->end();
}

void moa_batch_cancel(moa_batch *batch) {
  if (batch)
    unwrap(batch)->cancel();
}

} // extern "C"
