//===- batch.h - Sequences that step together -------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A step gives every sequence of a batch the same number of rows in all layers.
// Its pages are taken when it begins; its layers are attended to one by one, by
// calls that can be captured and replayed in later steps; pages that no later
// row can see go back when it ends.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_BATCH_H
#define MOA_RT_CACHE_BATCH_H

#include "backend/device.h"
#include "cache/head_change.h"
#include "sched/step.h"

#include <memory>
#include <vector>

namespace moa::rt {

class Batch {
public:
  Batch(Cache &cache, const BatchShape &shape);
  /// Lets the device make room.
  Status open();

  Status begin(Sequence *const *sequences, size_t count, int64_t tokens,
               void *stream);
  Status attend(const StepCall &call);
  /// Makes the step's rows part of the sequences.
  void end() noexcept;
  /// Gives the step up: sequences are as before it.
  void cancel() noexcept;
  /// A sequence goes: ends its step, forgets its tables.
  void forget(Sequence &sequence) noexcept;

  bool isOpen() const { return !members.empty(); }
  /// Whether captured calls replay with the sequences and lengths of the step
  /// at hand.
  bool replays() const { return device != nullptr; }
  Cache &owner() const { return cache; }

private:
  /// Room for one sequence's tables on the device.
  struct Slot {
    Sequence *sequence = nullptr;
    uint64_t revision = 0;  ///< Of the sequence when the tables were made.
    int64_t quiet = 0;      ///< Up to this many tokens nothing changes but its
                            ///< length,
    uint64_t disturbed = 0; ///< unless this is no longer the sequence's.
    bool member = false;    ///< Of the step at hand.
    bool known() const { return sequence && sequence->revision == revision; }
  };
  /// A KV head whose pages change in the step.
  struct Change {
    size_t member;
    uint32_t layer, head;
    HeadChange pages;
    size_t firstPage; ///< Its new ones in newPages.
  };
  /// A KV head whose newest page others hold too: the step has a copy.
  struct Copy {
    size_t member;
    uint32_t layer, head;
    PageId old;
  };
  /// A word of a slot's tables that the next step brings to the device.
  struct Late {
    size_t slot;
    uint32_t layer;
    int64_t to;
    int32_t value;
  };

  Status check(Sequence *const *sequences, size_t count, int64_t tokens) const;
  void assignSlots(Sequence *const *sequences, size_t count);
  void planHeads(uint32_t layer, size_t member);
  void addWord(int64_t to, int32_t value);
  void addTables(uint32_t layer, size_t member);
  PageId &placeOf(const Copy &copy) const;
  void useCopies() noexcept;
  void quantiseBlocks();
  /// What a slot's table says of a block: its page, or half of one.
  int32_t placeOf(uint32_t layer, uint32_t head, int64_t block, PageId page,
                  bool kv8) const;
  void listChanges();
  void count() noexcept;
  void giveUp() noexcept;
  void dropMembers() noexcept;
  Status attendByList(const StepCall &call);

  Cache &cache;
  const BatchShape shape;
  moa_gpu_prepare_args places = {}; ///< For where words lie.
  std::unique_ptr<BatchDevice> device;
  std::vector<Slot> slots;
  std::vector<Late> late; ///< By layer.
  // The step at hand.
  std::vector<Sequence *> members;
  std::vector<size_t> slotOf; ///< Of each member.
  std::vector<bool> quiet;    ///< Of each member: no head changes.
  std::vector<bool> known;    ///< Of each slot, before the step.
  int64_t tokens = 0;
  std::vector<Change> changes;     ///< By layer, member, head.
  std::vector<size_t> firstChange; ///< Of each layer, and their number.
  std::vector<Copy> copies;        ///< By layer, member, head.
  std::vector<PageId> newPages;    ///< Those of changes, then of copies.
  /// Of each head of members whose tables are told whole, in the layer at hand:
  /// where they begin in lists.values.
  std::vector<size_t> tableAt;
  std::vector<moa_append_item> rowsToCopy;
  std::vector<moa_quantise_item> blocksToQuantise;
  StepLists lists;
  std::vector<moa_attend_entry> entries;
  std::vector<const HeadChange *> decided; ///< Of each entry's KV heads.
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_BATCH_H
