//===- Decode.h - Attention of few rows over pages --------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The builder of decode kernels. Blocks share the line of all items' pages in
// equal parts; in a block four warps compute on a page, with the heads of the
// group as columns, once for each token of the item. How pages come, a kernel
// family says.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_CONVERSION_TILETOGPU_DECODE_H
#define MOA_CONVERSION_TILETOGPU_DECODE_H

#include "Builder.h"
#include "Kernels.h"
#include "ScoreScale.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/gpu_args.h"

namespace moa::gpu {

class Decode {
public:
  using Value = mlir::Value;
  using ValueRange = mlir::ValueRange;

  Decode(mlir::OpBuilder &builder, mlir::Location loc, const KernelForm &form)
      : b(loc, builder), form(form) {}
  virtual ~Decode() = default;
  mlir::LLVM::LLVMFuncOp build(llvm::StringRef name);

protected:
  static constexpr int64_t kSharers = 4; ///< Warps that share a page.
  /// Columns of a column tile: what one product of a warp has.
  static constexpr int64_t kColumns = 8;
  static constexpr int64_t kBarrier = 1; ///< Of the warps that compute.

  /// What is read of an item before its share begins: fields of
  /// moa_gpu_decode_item, and line pages [first, last) of the whole item.
  struct Facts {
    Value first, last, sinkPages, windowBegin, length, startMax, fresh, kvHead;
    Value tokens, token, zero, q, out, k, v;

    static Facts from(ValueRange v) {
      return {v[0], v[1], v[2],  v[3],  v[4],  v[5],  v[6], v[7],
              v[8], v[9], v[10], v[11], v[12], v[13], v[14]};
    }
    llvm::SmallVector<Value> values() const {
      return {first,    last,  sinkPages, windowBegin, length,
              startMax, fresh, kvHead,    tokens,      token,
              zero,     q,     out,       k,           v};
    }
  };

  /// The part of an item that lies in this block's part of the line.
  struct Share {
    Value item;     ///< Its number,
    Value place;    ///< its address,
    Facts facts;    ///< and what is read of it.
    Value from, to; ///< Line pages [from, to) of this block.
  };

  /// Where the ids of an item's pages are found.
  struct Pages {
    Value item;
    Value to;      ///< The block's line page behind the item's last.
    Value sinkEnd; ///< Line page behind its sink.
    Value sinkTable, windowTable; ///< The id of line page p is element
                                  ///< table + p.

    static Pages from(ValueRange v) { return {v[0], v[1], v[2], v[3], v[4]}; }
    llvm::SmallVector<Value> values() const {
      return {item, to, sinkEnd, sinkTable, windowTable};
    }
  };

  /// Blocks that have pages of an item: the first, and how many.
  struct Parts {
    Value block, count;
  };

  /// Of one column tile, in one warp; m in units of raw scores.
  struct Columns {
    llvm::SmallVector<Value> outputs; ///< 16 dimensions each.
    Value maximum, sum;               ///< Of the thread's two columns.
  };
  using State = llvm::SmallVector<Columns>;

  /// Keys or values of a page: 64 rows of a tile.
  struct Half {
    Value tile;
    int64_t row; ///< The first of them.
  };

  /// What is known of a page that may have 8-bit codes.
  struct Codes {
    Value any, int8;            ///< Whether it has any; or int8, not e4m3.
    Value keyScale, valueScale; ///< 1 where it has none.
  };

  // What a kernel family says.
  virtual int64_t streams() const = 0;   ///< Pages at a time.
  virtual int64_t registers() const = 0; ///< Of a thread.
  /// Warps that only load.
  virtual int64_t loaders() const = 0;
  /// Reserves memory for pages, beside `bytes` of other shared memory.
  virtual void placePages(int64_t bytes) = 0;
  /// What is done behind `takeCut`.
  virtual void run() = 0;
  int64_t warps() const { return kSharers * streams(); } ///< That compute.
  int64_t threads() const { return 32 * warps(); }       ///< That compute.

  // DecodeLine.cpp
  void takeCut();
  Value itemBehind(Value item);
  Facts loadFacts(Value item);
  /// `body` gets and returns values that are carried along.
  using ShareBody =
      llvm::function_ref<llvm::SmallVector<Value>(const Share &, ValueRange)>;
  void forShares(const Facts &front, ValueRange init, ShareBody body);
  Value blockNumber(const Share &share, Value page);

  Pages loadPages(Value item);
  Value pageId(const Pages &run, Value page);

  // DecodeColumns.cpp
  /// A column of the share's item: a query row of one head.
  struct Column {
    Value token, head; ///< Counted from the item's first, and in the group.
  };
  void findColumns(const Share &share);
  Value columnCount(); ///< Of the share's item.
  Column columnOf(Value number);
  Value startOf(const Share &share, Value number);
  Value endOf(Value number);
  Value queryRow(const Share &share, size_t tensor, Value place, Value number);
  void forColumns(Value count, int64_t most, int64_t slices,
                  llvm::function_ref<void(Value, Value)> body);

  // DecodeStep.cpp
  void takePlace(Value warp);
  void loadQueries(const Share &share);
  Value loadQuery(size_t columnTile, int64_t k);
  /// A page whose first key is `firstKey`; `keys` and `values` wait for them.
  /// `codes` are null in a kernel that takes none.
  using HalfOf = llvm::function_ref<Half()>;
  State step(Value firstKey, const State &state, HalfOf keys, HalfOf values,
             const Codes &codes = {});
  llvm::SmallVector<Value> scoresOf(const Half &keys);
  llvm::SmallVector<Value>
  sumScores(llvm::function_ref<Value(int64_t)> blockOf);
  void addValues(const Half &values, llvm::ArrayRef<Value> probabilities,
                 State &state);
  Value loadBlock(const Half &half, int64_t column, bool transposed);
  Value query(size_t columnTile, int64_t k) {
    return keepsQueries() ? queries[columnTile][k] : loadQuery(columnTile, k);
  }
  State emptyState();
  static llvm::SmallVector<Value> flatten(const State &state);
  State rebuild(ValueRange values);

  // DecodeCodes.cpp
  Value hasCodes(Value place);
  Value pageOf(Value place);
  Codes codesOf(Value place, mlir::ValueRange scales);
  llvm::SmallVector<Value> scoresOf(const Half &keys, const Codes &codes);
  llvm::SmallVector<Value> factorsOf(Value firstKey, const Codes &codes,
                                     bool whole);
  void addValues(const Half &values, llvm::ArrayRef<Value> probabilities,
                 State &state, const Codes &codes,
                 llvm::ArrayRef<Value> factors);
  llvm::SmallVector<Value> codeScores(const Half &keys, Code code);
  llvm::SmallVector<Value>
  codeOutputs(const Half &values, llvm::ArrayRef<Value> probabilities,
              const State &state, llvm::ArrayRef<Value> factors, Code code);
  llvm::SmallVector<Value> unpackedBlocks(const Half &half, int64_t column,
                                          bool transposed, Code code);

  // DecodeFresh.cpp
  enum class Fresh { Keys, Values, Both };
  struct Piece {
    Value column, row;    ///< In the tile; of the warp's first row,
    Value pageRow;        ///< and that in the page, of 2 * MOA_BLOCK_KEYS.
    Value source, stride; ///< In the call's tensor; elements between tokens.
  };
  /// The first fresh row of the share's item, if the block may have its page.
  struct FirstRow {
    Fresh which;
    llvm::SmallVector<Value> pieces;
  };
  void findFresh(const Share &share);
  void fetchFresh(const Share &share);
  /// `held` has the halves `which` of the page.
  void addFresh(const Share &share, Value page, Value firstKey, Value held,
                Fresh which);
  int64_t piecesIn(Fresh which);
  /// Whether the first fresh row and the last page's id are asked for early:
  /// they take registers until they are used.
  bool asksEarly() const { return hasRoom(); }
  /// Fresh rows that a lane asks for before it waits for them: what registers
  /// there are beside outputs allow.
  int64_t rowsAtOnce() const {
    return !hasRoom() ? 1 : columnTiles() == 1 ? 4 : 2;
  }
  llvm::SmallVector<Piece> piecesOf(const Facts &facts, Fresh which);
  Value loadPiece(const Piece &piece, Value token);
  Value zeroPiece();
  using FreshRow = llvm::function_ref<void(Value, llvm::ArrayRef<Value>)>;
  void forFresh(Value firstKey, llvm::ArrayRef<Piece> pieces,
                llvm::ArrayRef<Value> firstRow, FreshRow fresh,
                llvm::function_ref<void(Value)> behind);

  // DecodeMerge.cpp
  void mergeWarps(Share share, const State &state);
  void writeColumns(const Columns &columns);
  void combineWarps(const Share &share, int64_t columnTile);
  Parts loadParts(const Share &share);
  void mergeParts(const Share &share, const Parts &parts);
  void sumParts(const Share &share, const Parts &parts, Value slice,
                Value column, Value quad);
  void sumSlices(const Share &share, Value column, Value quad);
  void store(const Share &share, Value column, Value quad, Value sum,
             Value output);
  /// Maximum, sum and outputs of parts, each of one column and four dimensions.
  struct Part {
    Value maximum, sum, output;
  };
  Part combine(llvm::ArrayRef<Part> parts);
  Value slotPlace(Value slot, Value column);
  Value slicePlace(Value slice, Value column, Value quad);
  void meet() {
    BarrierOp::create(b, BarrierAction::Sync, b.i32(kBarrier), threads());
  }

  // Shared by them.
  Value opaque(Value number) {
    return OpaqueOp::create(b, b.getI32Type(), number);
  }
  /// Row of a head and a token (null: the first) at a place (i64) of the tensor
  /// whose moa_gpu_rows lies `tensor` bytes into the arguments.
  Value rowOf(size_t tensor, Value place, Value head, Value token);
  Value splat(int64_t size, Value value) {
    return mlir::vector::BroadcastOp::create(b, b.f32s(size), value);
  }
  int64_t group() const { return form.rows; }
  int64_t columnTiles() const { return form.columns / kColumns; }
  int64_t headDim() const { return form.headDim; }
  /// Whether unpacking leaves registers beside outputs.
  bool hasRoom() const {
    return !form.kv8 || (columnTiles() == 1 && headDim() <= 192);
  }
  /// Whether all queries of a share fit in registers beside its outputs.
  bool keepsQueries() const {
    return hasRoom() && columnTiles() * headDim() <= 384;
  }
  /// Bytes of one column in the scratch of a warp: 16 more than its floats, so
  /// that the lanes' stores meet no bank twice.
  int64_t columnBytes() const { return (headDim() + 4) * 4; }
  int64_t outputBytes() const { return warps() * kColumns * columnBytes(); }
  /// Sets of threads that add up an item's parts, each some of them: as many
  /// sums must have room in the scratch of the warps.
  int64_t slices() const {
    return 2 * form.columns * headDim() * 8 <= outputBytes() ? 2 : 1;
  }
  /// Bytes of one column of a part: maximum and sum lie behind its floats, in
  /// 32 bytes that four threads write whole.
  int64_t partBytes() const { return (headDim() + 8) * 4; }

  KernelBuilder b;
  const KernelForm form;

  Value args, items, line, tables, cuts; ///< Parameters.
  Value partials, counters, sink;
  ScoreScale scale;
  Value count, starts; ///< Of items; the line page at which each starts.
  Value outputs;       ///< [warp][column of a tile] floats of a column.
  Value sums;          ///< [warp][column]: maximum and sum.
  Value ticket;        ///< What the block's arrival found in the counter.
  Value block;
  Value begin, end; ///< Line pages of this block.
  Value firstItem;
  Value firstIds;      ///< Lane i's: of page begin + i % MOA_GPU_CUT_IDS.
  Pages first, second; ///< Of that item and of the one behind it.
  // In a warp that computes.
  Value warp, laneRow, laneColumn; ///< lane / 4 and 2 * (lane % 4).
  Value stream, warpRow;           ///< Which pages, and which rows of them.
  // Of the share at hand, in a warp that computes.
  Value length, startMax;
  Value firstEnd;  ///< Position behind the last key of its first token.
  Value freshFrom; ///< Position of the first fresh key, or the largest i32.
  llvm::SmallVector<FirstRow> firstRows; ///< By what tiles hold.
  Value lastId; ///< Of the item's last page, if the block may have it.
  // Of those, by column tile.
  llvm::SmallVector<Value> queryRows;
  llvm::SmallVector<llvm::SmallVector<Value>> queries;
  llvm::SmallVector<std::pair<Value, Value>> windowStarts;
};

} // namespace moa::gpu

#endif // MOA_CONVERSION_TILETOGPU_DECODE_H
