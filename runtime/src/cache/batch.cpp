//===- batch.cpp - Sequences that step together ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Implementation of batch.h. A sequence's heads are looked at only in steps
// that can change them: a new block begins, or a window passes one.
//
//===----------------------------------------------------------------------===//

#include "cache/batch.h"

#include "cache/cache.h"
#include "moa/abi/gpu_args.h"

#include <algorithm>

namespace moa::rt {

constexpr int64_t kBlock = MOA_BLOCK_KEYS;

Batch::Batch(Cache &cache, const BatchShape &shape)
    : cache(cache), shape(shape), slots(shape.sequences),
      known(shape.sequences) {
  const Geometry &g = cache.module.geometry;
  places.layers = static_cast<int32_t>(g.layers);
  places.q_heads = static_cast<int32_t>(g.qHeads);
  places.kv_heads = static_cast<int32_t>(g.kvHeads);
  places.slots = static_cast<int32_t>(shape.sequences);
  places.blocks = shape.blocks;
  // Nothing on the way of end() allocates.
  members.reserve(shape.sequences);
}

Status Batch::open() {
  MOA_RT_TRY(cache.makeBatchDevice(shape, device));
  const Geometry &g = cache.module.geometry;
  if (device)
    late.reserve(slots.size() * g.layers * g.kvHeads);
  return ok();
}

Status Batch::check(Sequence *const *sequences, size_t count,
                    int64_t tokens) const {
  const Geometry &g = cache.module.geometry;
  if (isOpen())
    return error(MOA_INVALID_ARGUMENT,
                 "the batch has a step under way; call moa_batch_end, or "
                 "moa_batch_cancel to give it up, first");
  if (!sequences || count < 1 || count > shape.sequences)
    return error(MOA_INVALID_ARGUMENT, "the step has ", count,
                 " sequences, expected 1 to the batch's max_sequences ",
                 shape.sequences);
  if (tokens < 1 || tokens > shape.tokens)
    return error(MOA_INVALID_ARGUMENT, "the step has ", tokens,
                 " tokens a sequence, expected 1 to the batch's max_tokens ",
                 shape.tokens);
  const uint64_t thisStep = cache.newCall();
  for (size_t i = 0; i < count; ++i) {
    Sequence *sequence = sequences[i];
    if (!sequence || &sequence->cache != &cache)
      return error(MOA_INVALID_ARGUMENT, "sequence ", i,
                   " is NULL or of another cache");
    if (sequence->step)
      return error(MOA_INVALID_ARGUMENT, "sequence ", i,
                   " is part of another batch's step; end that first");
    if (sequence->namedBy == thisStep)
      return error(MOA_INVALID_ARGUMENT, "sequences ", sequence->namedAt,
                   " and ", i, " are the same; a sequence may appear once");
    sequence->namedBy = thisStep;
    sequence->namedAt = i;
    const int64_t seen = sequence->layers[0].seen;
    for (uint32_t layer = 1; layer < g.layers; ++layer)
      if (sequence->layers[layer].seen != seen)
        return error(MOA_INVALID_ARGUMENT, "sequence ", i,
                     ": layer 0 has seen ", seen, " tokens and layer ", layer,
                     " ", sequence->layers[layer].seen,
                     "; attend in every layer before a step");
    const int64_t most = std::min<int64_t>(g.maxLength, shape.blocks * kBlock);
    if (tokens > most - seen)
      return error(MOA_OUT_OF_RANGE, "sequence ", i, ": ", seen,
                   " tokens seen and ", tokens, " new exceed ", most,
                   ", the least of the batch's max_length and the artifact's; "
                   "make a batch with a larger max_length");
  }
  return ok();
}

/// Members keep the slots they have; others get free ones, then those whose
/// sequences do not take part. check() has named the sequences.
void Batch::assignSlots(Sequence *const *sequences, size_t count) {
  for (Slot &slot : slots)
    slot.member = false;
  slotOf.assign(count, slots.size());
  const uint64_t thisStep = sequences[0]->namedBy;
  for (size_t s = 0; s < slots.size(); ++s)
    if (slots[s].sequence && slots[s].sequence->namedBy == thisStep) {
      slotOf[slots[s].sequence->namedAt] = s;
      slots[s].member = true;
    }
  for (bool used : {false, true})
    for (size_t i = 0, s = 0; i < count; ++i) {
      if (slotOf[i] != slots.size())
        continue;
      while (s < slots.size() &&
             (slots[s].member || (!used && slots[s].sequence)))
        ++s;
      if (s == slots.size())
        break;
      slots[s] = {sequences[i], UINT64_MAX, 0, 0, true};
      slotOf[i] = s;
    }
}

/// Decides what a member's KV heads keep in one layer, and counts new pages.
void Batch::planHeads(uint32_t layer, size_t member) {
  Sequence &sequence = *members[member];
  LayerState &state = sequence.layers[layer];
  Slot &slot = slots[slotOf[member]];
  const int64_t total = state.seen + tokens;
  for (uint32_t h = 0; h < state.heads.size(); ++h) {
    HeadPages &head = state.heads[h];
    HeadChange change(sequence, layer, h, tokens);
    // A window's start moves by a row a row at most, or, where prefixes are
    // reused, when a block is full.
    const int64_t full = change.next.window_end * kBlock;
    slot.quiet = std::min(
        {slot.quiet, cache.prefixes ? full : full + 1,
         total + (change.next.window_begin + 1) * kBlock - change.start});
    if (cache.module.kvFormat(layer, h) != MOA_KV_MODEL)
      slot.quiet = std::min(slot.quiet, (change.next.kv8_end + 1) * kBlock +
                                            cache.rollback + 1);
    if (change.copies)
      copies.push_back({member, layer, h, kNoPage});
    change.copies = false; // The copy is there before the step's rows.
    // A step's rows are stored by its layers, which come behind this: a block
    // that they complete goes to 8 bits when the next step begins.
    if (device && change.kv8.begin < change.kv8.end &&
        change.kv8.end * kBlock > state.seen) {
      change.next.kv8_end = std::max<int32_t>(
          change.next.window_begin, static_cast<int32_t>(state.seen / kBlock));
      change.kv8.end = std::max(change.kv8.begin, state.seen / kBlock);
      change.brings &= change.kv8.begin < change.kv8.end;
      slot.quiet = 0;
    }
    const size_t fresh = change.newPages();
    if (fresh == 0 && change.kv8.begin >= change.kv8.end &&
        change.next.window_begin == head.resident.window_begin)
      continue;
    changes.push_back({member, layer, h, change, newPages.size()});
    newPages.resize(newPages.size() + fresh); // Counted now, named later.
    if (head.pages.size() < static_cast<size_t>(blocksOf(total)))
      head.pages.resize(blocksOf(total), kNoPage);
  }
}

/// Where the page lies that a copy stands for.
PageId &Batch::placeOf(const Copy &copy) const {
  LayerState &layer = members[copy.member]->layers[copy.layer];
  return layer.heads[copy.head].pages[layer.seen / kBlock];
}

/// Puts the copies, the last of the new pages, in place of what they copy.
/// There is room for their list.
void Batch::useCopies() noexcept {
  size_t next = newPages.size() - copies.size();
  for (Copy &copy : copies) {
    PageId &page = placeOf(copy);
    copy.old = page;
    page = newPages[next++];
    const int64_t rows = members[copy.member]->layers[copy.layer].seen % kBlock;
    rowsToCopy.push_back(copyOfPage(cache.module.geometry, cache.pool, copy.old,
                                    page, rows, kBlock - rows));
  }
}

int32_t Batch::placeOf(uint32_t layer, uint32_t head, int64_t block,
                       PageId page, bool kv8) const {
  if (!kv8 || page == kNoPage)
    return static_cast<int32_t>(page);
  return moa_gpu_codes_place(static_cast<int32_t>(page), block % 2,
                             cache.module.kvFormat(layer, head));
}

/// Lists the blocks of all layers that the step's rows see in 8 bits for the
/// first time.
void Batch::quantiseBlocks() {
  blocksToQuantise.clear();
  for (const Change &change : changes) {
    const HeadChange &pages = change.pages;
    const HeadPages &head =
        members[change.member]->layers[change.layer].heads[change.head];
    for (int64_t block = pages.kv8.begin; block < pages.kv8.end; ++block) {
      moa_quantise_item item = quantiseTo(
          cache.pool,
          pages.kv8Page(head, newPages.data() + change.firstPage, block), block,
          cache.module.kvFormat(change.layer, change.head),
          pages.brings && block == pages.kv8.begin ? head.pages[block - 1]
                                                   : kNoPage);
      quantiseFrom(item, cache.module.geometry, cache.pool, head.pages[block]);
      blocksToQuantise.push_back(item);
    }
  }
}

void Batch::addWord(int64_t to, int32_t value) {
  lists.runs.push_back({to, static_cast<int32_t>(lists.values.size()), 1});
  lists.values.push_back(value);
}

/// All tables and floors of a member that is new to its slot.
void Batch::addTables(uint32_t layer, size_t member) {
  const size_t slot = slotOf[member];
  static_assert(sizeof(PageId) == sizeof(int32_t), "tables are copied");
  const LayerState &state = slots[slot].sequence->layers[layer];
  const auto begun = static_cast<size_t>(blocksOf(state.seen));
  for (uint32_t h = 0; h < state.heads.size(); ++h) {
    const HeadPages &head = state.heads[h];
    addWord(moa_gpu_step_floor(&places, slot, layer, h),
            static_cast<int32_t>(head.firstResident()));
    tableAt[member * state.heads.size() + h] = lists.values.size();
    if (!begun)
      continue;
    lists.runs.push_back({moa_gpu_step_table(&places, slot, layer, h),
                          static_cast<int32_t>(lists.values.size()),
                          static_cast<int32_t>(begun)});
    for (size_t block = 0; block < begun; ++block)
      lists.values.push_back(
          placeOf(layer, h, block, head.pages[block], head.isKv8(block)));
  }
}

/// Lists, layer by layer, the words that the device does not have yet.
void Batch::listChanges() {
  lists.sequences.clear();
  lists.runs.clear();
  lists.firstRun.clear();
  lists.values.clear();
  for (size_t i = 0; i < members.size(); ++i)
    lists.sequences.push_back(
        {members[i]->length, static_cast<int32_t>(slotOf[i]),
         static_cast<int32_t>(members[i]->layers[0].seen + tokens)});
  size_t next = 0, copied = 0;
  const size_t kvHeads = cache.module.geometry.kvHeads;
  tableAt.resize(members.size() * kvHeads);
  for (uint32_t layer = 0; layer < cache.module.geometry.layers; ++layer) {
    lists.firstRun.push_back(static_cast<int32_t>(lists.runs.size()));
    for (; next < late.size() && late[next].layer == layer; ++next)
      // A slot that is filled anew has its floors from there.
      if (known[late[next].slot])
        addWord(late[next].to, late[next].value);
    for (size_t i = 0; i < members.size(); ++i)
      if (!known[slotOf[i]])
        addTables(layer, i);
    for (; copied < copies.size() && copies[copied].layer == layer; ++copied) {
      const Copy &copy = copies[copied];
      const size_t slot = slotOf[copy.member];
      if (known[slot])
        addWord(moa_gpu_step_table(&places, slot, layer, copy.head) +
                    members[copy.member]->layers[layer].seen / kBlock,
                static_cast<int32_t>(placeOf(copy)));
    }
    for (size_t c = firstChange[layer]; c < firstChange[layer + 1]; ++c) {
      const Change &change = changes[c];
      const int64_t table = moa_gpu_step_table(&places, slotOf[change.member],
                                               layer, change.head);
      for (int64_t p = 0; p < change.pages.fullPages; ++p)
        addWord(table + change.pages.begun() + p,
                static_cast<int32_t>(newPages[change.firstPage + p]));
      // The block that a page brings along is in both until the step ends.
      const HeadPages &head =
          members[change.member]->layers[layer].heads[change.head];
      const Kv8Blocks &kv8 = change.pages.kv8;
      for (int64_t block = kv8.begin - change.pages.brings; block < kv8.end;
           ++block) {
        const int32_t place = placeOf(
            layer, change.head, block,
            change.pages.kv8Page(head, newPages.data() + change.firstPage,
                                 std::max(block, kv8.begin)),
            true);
        // Of two runs to the same word none is known to come last.
        if (known[slotOf[change.member]])
          addWord(table + block, place);
        else
          lists.values[tableAt[change.member * kvHeads + change.head] + block] =
              place;
      }
    }
  }
  lists.firstRun.push_back(static_cast<int32_t>(lists.runs.size()));
  lists.tokens = static_cast<int32_t>(tokens);
  lists.zeroTails = false;
  for (size_t i = 0; i < members.size(); ++i)
    for (const LayerState &layer : members[i]->layers)
      lists.zeroTails |= !quiet[i] && layer.dirtyTail;
}

Status Batch::begin(Sequence *const *sequences, size_t count, int64_t rows,
                    void *stream) {
  MOA_RT_TRY(check(sequences, count, rows));
  assignSlots(sequences, count);
  try {
    members.assign(sequences, sequences + count);
    tokens = rows;
    changes.clear();
    copies.clear();
    newPages.clear();
    firstChange.clear();
    for (size_t s = 0; s < slots.size(); ++s)
      known[s] = slots[s].known();
    quiet.assign(count, false);
    for (size_t i = 0; i < count; ++i) {
      Slot &slot = slots[slotOf[i]];
      quiet[i] = known[slotOf[i]] && slot.disturbed == members[i]->disturbed &&
                 members[i]->layers[0].seen + tokens < slot.quiet;
      if (!quiet[i]) {
        slot.quiet = INT64_MAX;
        slot.disturbed = members[i]->disturbed;
      }
    }
    for (uint32_t layer = 0; layer < cache.module.geometry.layers; ++layer) {
      firstChange.push_back(changes.size());
      for (size_t i = 0; i < count; ++i)
        if (!quiet[i])
          planHeads(layer, i);
    }
    firstChange.push_back(changes.size());
    rowsToCopy.clear();
    rowsToCopy.reserve(copies.size());
    const size_t wanted = newPages.size() + copies.size();
    newPages.clear();
    if (Status failed = cache.pool.allocate(wanted, newPages)) {
      giveUp();
      return failed;
    }
    useCopies();
  } catch (...) {
    giveUp();
    throw;
  }
  Status failed;
  try {
    if (device) {
      quantiseBlocks();
      listChanges();
      failed = device->begin(lists, stream);
    }
    if (!failed)
      failed = cache.copyPages(rowsToCopy, stream);
    if (!failed && device)
      failed = cache.quantise(blocksToQuantise, stream);
  } catch (...) {
    cancel();
    throw;
  }
  if (failed) {
    cancel();
    return failed;
  }
  late.clear();
  for (size_t i = 0; i < count; ++i) {
    slots[slotOf[i]].revision = members[i]->revision;
    members[i]->step = this;
  }
  return ok();
}

/// The rows of a step that ends.
void Batch::count() noexcept {
  moa_counters &counters = cache.counters;
  const uint64_t rows = members.size() * tokens;
  ++counters.batch_steps;
  counters.tokens += rows;
  counters.pages_copied += copies.size();
  for (uint32_t layer = 0; layer < cache.module.geometry.layers; ++layer)
    (device || cache.module.decodes(layer, tokens) ? counters.decode_rows
                                                   : counters.prefill_rows) +=
        rows;
}

void Batch::end() noexcept {
  if (!isOpen())
    return;
  count();
  for (const Copy &copy : copies)
    cache.pool.release(copy.old);
  copies.clear();
  for (const Change &change : changes) {
    LayerState &state = members[change.member]->layers[change.layer];
    HeadPages &head = state.heads[change.head];
    const int32_t before = head.resident.window_begin;
    change.pages.apply(head, cache.pool, newPages.data() + change.firstPage,
                       state.seen + tokens);
    const size_t slot = slotOf[change.member];
    if (device && before != head.resident.window_begin)
      late.push_back(
          {slot, change.layer,
           moa_gpu_step_floor(&places, slot, change.layer, change.head),
           static_cast<int32_t>(head.firstResident())});
  }
  for (size_t i = 0; i < members.size(); ++i) {
    Sequence &sequence = *members[i];
    for (LayerState &layer : sequence.layers) {
      layer.seen += tokens;
      layer.dirtyTail = false;
    }
    Slot &slot = slots[slotOf[i]];
    const bool current = slot.known();
    ++sequence.revision;
    if (current)
      slot.revision = sequence.revision;
    const int64_t before = sequence.layers[0].seen - tokens;
    for (uint32_t layer = 0; cache.prefixes && layer < sequence.layers.size();
         ++layer)
      sequence.publish(layer, before / kBlock);
  }
  dropMembers();
  changes.clear();
  newPages.clear();
}

void Batch::cancel() noexcept {
  if (!isOpen())
    return;
  // Pages that are kept may have rows of the step behind their last one.
  for (Sequence *member : members)
    for (LayerState &layer : member->layers)
      layer.dirtyTail = true;
  for (const Copy &copy : copies)
    placeOf(copy) = copy.old;
  for (PageId page : newPages)
    cache.pool.release(page);
  newPages.clear();
  // What the device was told of the step is told again.
  for (size_t slot : slotOf)
    slots[slot].revision = UINT64_MAX;
  giveUp();
}

/// What was found out holds for a step that does not happen.
void Batch::giveUp() noexcept {
  for (size_t slot : slotOf)
    slots[slot].quiet = 0;
  dropMembers();
  changes.clear();
  copies.clear();
}

void Batch::dropMembers() noexcept {
  for (Sequence *member : members)
    if (member->step == this)
      member->step = nullptr;
  members.clear();
}

void Batch::forget(Sequence &sequence) noexcept {
  if (sequence.step == this)
    end();
  for (Slot &slot : slots)
    if (slot.sequence == &sequence)
      slot = {};
}

Status Batch::attend(const StepCall &call) {
  if (!isOpen())
    return error(MOA_INVALID_ARGUMENT,
                 "the batch has no step under way; call moa_batch_begin first");
  MOA_RT_TRY(cache.module.checkLayer(call.layer));
  if (!device)
    return attendByList(call);
  MOA_RT_TRY(cache.checkStep(call, tokens));
  return device->attend(call, members.size(), static_cast<int32_t>(tokens),
                        cache.ropeOf(call.layer));
}

/// For devices that get the work of every call as a list.
Status Batch::attendByList(const StepCall &call) {
  const size_t bytes = cache.module.geometry.elementBytes();
  auto at = [&](const StepTensor &tensor, size_t row) {
    return tensor.data
               ? static_cast<const char *>(tensor.data) +
                     static_cast<int64_t>(row * bytes) * tensor.sequenceStride
               : nullptr;
  };
  entries.clear();
  for (size_t i = 0; i < members.size(); ++i)
    entries.push_back({reinterpret_cast<moa_sequence *>(members[i]), tokens,
                       at(call.q, i), at(call.k, i), at(call.v, i),
                       const_cast<char *>(at(call.out, i)), call.q.tokenStride,
                       call.q.headStride, call.k.tokenStride, call.k.headStride,
                       call.v.tokenStride, call.v.headStride,
                       call.out.tokenStride, call.out.headStride});
  const uint32_t kvHeads = cache.module.geometry.kvHeads;
  decided.assign(members.size() * kvHeads, nullptr);
  std::vector<PageId> pages;
  // By member and head, as a plan counts them.
  for (size_t c = firstChange[call.layer]; c < firstChange[call.layer + 1];
       ++c) {
    const Change &change = changes[c];
    decided[change.member * kvHeads + change.head] = &change.pages;
    const auto first = newPages.begin() + change.firstPage;
    pages.insert(pages.end(), first, first + change.pages.newPages());
  }
  return cache.attendWith(
      {call.layer, call.scale, call.stream, entries.data(), entries.size()},
      pages, decided.data());
}

} // namespace moa::rt
