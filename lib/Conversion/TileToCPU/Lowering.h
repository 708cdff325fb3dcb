//===- Lowering.h - Lowering of one kernel ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The interface between the pass, which walks a kernel's operations, and the
// two ways of laying tiles out. Scratch memory is assigned here, once, at
// compile time.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOCPU_LOWERING_H
#define MOA_CONVERSION_TILETOCPU_LOWERING_H

#include "Emitter.h"
#include "moa/Dialect/MoaTile/IR/MoaTile.h"
#include "moa/Target/Chip.h"
#include "moa/abi/kernel_args.h"
#include "llvm/ADT/DenseMap.h"
#include <memory>

namespace moa::cpu {

/// Where a tile lies: rows of `stride` elements of `element`, which is i8 for
/// codes.
struct Buffer {
  mlir::Value pointer;
  mlir::Value stride;
  mlir::Type element;
  int32_t format = MOA_KV_MODEL;
  mlir::Value scale = {}; ///< Of what load() makes of codes, an f32.

  /// `lanes` elements or codes, as f32, not scaled.
  mlir::Value load(Emitter &e, mlir::Value pointer) const;
};

/// Keys or values of a block whose format the item tells.
struct BlockTile {
  Buffer rows;        ///< In the model's type, if it is that.
  mlir::Value format; ///< MOA_KV_*, an i32; null where it is always that.
  mlir::Value scale;  ///< Address of the scale; null if format is.
};

/// Scratch memory of one kernel, handed out from the front; 64-byte aligned.
class Scratch {
public:
  explicit Scratch(mlir::Value base) : base(base) {}
  /// Reserves `floats` f32 and returns their address.
  mlir::Value take(Emitter &e, int64_t floats);
  int64_t bytes() const { return used; }

private:
  mlir::Value base;
  int64_t used = 0;
};

/// Fields of the work item, read from memory at the insertion point.
class Item {
public:
  Item(Emitter &e, mlir::Value pointer) : e(e), pointer(pointer) {}
  mlir::Value field(size_t byteOffset, mlir::Type type);
  mlir::Value pointerField(size_t byteOffset);
  /// An int32 field as i64.
  mlir::Value intField(size_t byteOffset);

private:
  Emitter &e;
  mlir::Value pointer;
};

/// Lowers the attention operations of one kernel. The state and the scratch
/// tiles exist once a kernel: tile form guarantees linear states, and scores
/// and probabilities of a block are dead when the next block starts.
class AttentionLowering {
public:
  AttentionLowering(Emitter &e, const CpuChip &chip, mlir::Value item,
                    Scratch &scratch, int64_t rows, int64_t dims,
                    mlir::Type element, bool kv8)
      : e(e), chip(chip), item(e, item), scratch(scratch), rows(rows),
        dims(dims), element(element), kv8(kv8) {}
  virtual ~AttentionLowering() = default;

  virtual void loadQueries() = 0;
  virtual void init() = 0;
  virtual void scores(const BlockTile &keys) = 0;
  virtual void softCap(float cap) = 0; ///< In units of log2.
  virtual void mask(tile::MaskClass classes, mlir::Value block) = 0;
  /// `skipZero` is that of the accumulate that takes the probabilities.
  virtual void softmaxStep(bool skipZero) = 0;
  virtual void accumulate(const BlockTile &values, bool skipZero) = 0;
  virtual void store() = 0;

  /// Keys or values of a block, where the runtime says they lie.
  BlockTile blockTile(mlir::Value block, bool values);
  /// Bounds of a segment's blocks.
  std::pair<mlir::Value, mlir::Value> segment(tile::Segment segment);

protected:
  /// Emits `body` once for each format that the tile can have.
  void forFormats(const BlockTile &tile,
                  llvm::function_ref<void(const Buffer &)> body);
  /// Caps `count` scores, a multiple of 64, that lie dense at `tile`.
  void capScores(mlir::Value tile, int64_t count, float cap);

  Emitter &e;
  const CpuChip &chip;
  Item item;
  Scratch &scratch;
  const int64_t rows;
  const int64_t dims;
  const mlir::Type element;
  const bool kv8;
};

/// `element` is the type of queries, keys and values in memory; with `kv8`
/// there are blocks of 8 bits beside.
std::unique_ptr<AttentionLowering>
createRowLanes(Emitter &e, const CpuChip &chip, mlir::Value item,
               Scratch &scratch, int64_t rows, int64_t dims, mlir::Type element,
               bool kv8);
std::unique_ptr<AttentionLowering>
createDimLanes(Emitter &e, const CpuChip &chip, mlir::Value item,
               Scratch &scratch, int64_t rows, int64_t dims, mlir::Type element,
               bool kv8);

/// Lowers moa_tile.copy_rows.
void lowerCopyRows(Emitter &e, mlir::Value item, int64_t dims, mlir::Type type);

/// Lowers moa_tile.quantise_rows.
void lowerQuantiseRows(Emitter &e, mlir::Value item, int64_t dims,
                       mlir::Type type);

/// Lowers moa_tile.rotate_rows.
void lowerRotateRows(Emitter &e, mlir::Value item, int64_t dims,
                     mlir::Type type, tile::RopeAttr rope);

/// The value that a running maximum starts from: finite, so that minus
/// infinity less it is minus infinity and never NaN.
inline constexpr float kNoMaximum = -3.4028234663852886e38f;

} // namespace moa::cpu

#endif // MOA_CONVERSION_TILETOCPU_LOWERING_H
