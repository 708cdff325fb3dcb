//===- fork.cpp - Sequences that share pages ------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A fork holds the same pages as the sequence it comes from. The first of them
// that writes to a page with rows copies it: see Plan and Batch.
//
//===----------------------------------------------------------------------===//

#include "cache/cache.h"

namespace moa::rt {

Status Cache::fork(Sequence &sequence, Sequence *&out) {
  MOA_RT_TRY(sequence.checkIdle());
  sequences.reserve(sequences.size() + 1);
  auto child = std::make_unique<Sequence>(*this, module, pool, sequence.length);
  std::vector<LayerState> layers = sequence.layers;
  TokenChain chain = sequence.chain;
  // Nothing fails from here on.
  child->layers.swap(layers);
  child->chain.swap(chain);
  child->holdAll();
  ++sequence.disturbed;
  ++counters.sequences_forked;
  out = child.get();
  sequences.push_back(std::move(child));
  return ok();
}

Status Cache::copyPages(const std::vector<moa_append_item> &copies,
                        void *stream) {
  if (copies.empty())
    return ok();
  // It copies rows of any layer.
  const Kernel &append = module.layers[0].append;
  if (!append.entry)
    return error(MOA_UNSUPPORTED, "layer 0 has no append kernel, which copies "
                                  "the pages of forks; compile with --phase "
                                  "prefill,decode,append");
  return executor->copyPages(append, copies, stream);
}

Status Cache::quantise(const std::vector<moa_quantise_item> &items,
                       void *stream) {
  if (items.empty())
    return ok();
  // Those of all layers that have one do the same.
  for (const LayerKernels &kernels : module.layers)
    if (kernels.quantise.entry)
      return executor->quantise(kernels.quantise, items, stream);
  return error(MOA_UNSUPPORTED, "no layer has a quantise kernel; compile the "
                                "plan again");
}

} // namespace moa::rt
