//===- PrefillAmpere.cpp - Attention of many rows from sm_80 on -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every warp has 16 query rows and every thread fetches. Keys and values of a
// tile follow one another through the same places in shared memory, so that a
// step is two turns alike:
//
//   await keys(t);   fetch ahead; S = Q K(t); mask; softmax(S)
//   await values(t); fetch ahead; O = O * rescale + round(P) V(t)
//
// Probabilities stay in registers: sums of a product are laid out as the left
// operand of the next.
//
//===----------------------------------------------------------------------===//

#include "Builder.h"
#include "Kernels.h"
#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "moa/abi/gpu_args.h"
#include "llvm/Support/MathExtras.h"
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

namespace {

constexpr int64_t kMeet = 1;      ///< Named barrier between items.
constexpr int64_t kElement = 2;   ///< Bytes.
constexpr int64_t kWarpRows = 16; ///< Query rows of a warp.
/// Head sizes up to this one keep a warp's queries in registers.
constexpr int64_t kQueriesInRegisters = 128;
/// Of a thread: half of what there is where that suffices, so that two blocks
/// of 256 threads share a multiprocessor.
int64_t registersFor(int64_t headDim) { return headDim <= 64 ? 128 : 255; }

/// A tensor of the call, of one head.
struct Tensor {
  Value base;
  Value stride; ///< Bytes between rows, i64.
};

struct Item {
  SmallVector<Value> fields;
  Value tiles;     ///< Window and sink tiles.
  Value callStart; ///< Position of the call's row 0.
  Value tokens;    ///< Rows of the call's tensors.
  Tensor keys, values;

  Value field(size_t byteOffset) const { return fields[byteOffset / 4]; }
};
#define FIELD(item, name) (item).field(offsetof(moa_gpu_prefill_item, name))
#define ENTRY_FIELD(name) offsetof(moa_gpu_entry, name)

/// What a step hands to the next.
struct State {
  SmallVector<Value> outputs; ///< 8 columns each.
  Value maximum, sum;
  Value place; ///< Table entry of the newest tile whose keys were fetched.

  SmallVector<Value> values() const {
    SmallVector<Value> all = outputs;
    all.append({maximum, sum, place});
    return all;
  }
  static State from(ValueRange v) {
    size_t n = v.size() - 3;
    return {SmallVector<Value>(v.take_front(n)), v[n], v[n + 1], v[n + 2]};
  }
};

class PrefillAmpere {
public:
  PrefillAmpere(OpBuilder &builder, Location loc, const KernelForm &form,
                int64_t places)
      : b(loc, builder), form(form), places(places),
        threads(form.rows / kWarpRows * 32) {
    MLIRContext *ctx = b.getContext();
    int64_t padded = llvm::alignTo(form.headDim, MOA_GPU_PANEL);
    queryTile = SharedType::get(ctx, form.rows, padded, form.element);
    tile = SharedType::get(ctx, form.keys, padded, form.element);
  }
  LLVM::LLVMFuncOp build(StringRef name);

private:
  void runItem(Value number);
  Item loadItem(Value number);
  Tensor tensorOf(const Item &item, Value head, size_t pointer, size_t row,
                  size_t stride);
  Value tileNumber(const Item &item, Value step);

  void fetchQueries(const Item &item);
  Value placeOf(const Item &item, Value step);
  void fetchTile(const Item &item, Value step, Value place, bool values,
                 Value use);
  void prepareRows(const Item &item);
  void loadQueries();
  Value query(int64_t k);

  State step(const Item &item, Value step, const State &old);
  Value scoresOf(Value keys);
  Value maskWhereNeeded(const Item &item, Value scores, Value tileNumber);
  Value boundOf(Value maximum);
  void addValues(Value values, Value probabilities,
                 SmallVectorImpl<Value> &outputs);
  void store(const Item &item, const State &state);

  Value await(Value buffers, SharedType type, Value use, int64_t pending) {
    return AwaitOp::create(b, type, buffers, use, pending);
  }
  Value wide(Value x) { return arith::ExtSIOp::create(b, b.getI64Type(), x); }
  Value i64(int64_t value) {
    return arith::ConstantOp::create(b, b.getI64IntegerAttr(value));
  }
  Value times(Value x, Value y) { return arith::MulIOp::create(b, x, y); }
  /// Address of row `row` (i32).
  Value rowOf(const Tensor &tensor, Value row) {
    return b.offset(tensor.base, times(wide(row), tensor.stride));
  }
  VectorType vector(int64_t size) {
    return VectorType::get({size}, b.getF32Type());
  }
  VectorType packed(int64_t size) {
    return VectorType::get({size}, b.getI32Type());
  }
  Value constant(int64_t size, float value) {
    return arith::ConstantOp::create(
        b, DenseElementsAttr::get(vector(size), value));
  }
  SmallVector<Value> split(Value value) {
    return llvm::to_vector_of<Value>(
        vector::ToElementsOp::create(b, value).getResults());
  }
  Value join(ValueRange elements) {
    auto type =
        VectorType::get({int64_t(elements.size())}, elements.front().getType());
    return vector::FromElementsOp::create(b, type, elements);
  }
  Value pack(Value fragment) {
    int64_t size = cast<VectorType>(fragment.getType()).getNumElements();
    return PackOp::create(b, packed(size / 2), fragment,
                          TypeAttr::get(form.element));
  }
  /// Adds the product with 16 columns, which lie in `block` as a left operand:
  /// its even registers are the first 8 of them, its odd ones the others.
  void multiply(Value left, Value block, MutableArrayRef<Value> sums) {
    SmallVector<Value> registers = split(block);
    for (int64_t half : {0, 1})
      sums[half] = MultiplyOp::create(
          b, vector(4), left, join({registers[half], registers[half + 2]}),
          sums[half], TypeAttr::get(form.element));
  }

  KernelBuilder b;
  const KernelForm form;
  const int64_t places;
  const int64_t threads;
  SharedType queryTile, tile;

  Value entries, pool, items, tables, starts, count, sink, scale; ///< Params.
  Value queryBuffer, buffers;
  Value warpRow; ///< First of the warp's rows in the item.
  Value laneRow; ///< First of the thread's two rows in the item.
  // Of the item at hand.
  Value queriesHeld; ///< Tile.
  SmallVector<Value> queries;
  Value position, lanePosition, start0, start1, startMax;
};

} // namespace

LLVM::LLVMFuncOp PrefillAmpere::build(StringRef name) {
  LLVM::LLVMFuncOp function = b.attentionKernel(
      name, sizeof(moa_gpu_prefill_entries), 8, 4, 4, 2,
      LaunchAttr::get(b.getContext(), threads, registersFor(form.headDim),
                      form.rows, form.keys));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  Value *parameters[] = {&entries, &pool,  &items, &tables,
                         &starts,  &count, &sink,  &scale};
  for (auto [parameter, argument] :
       llvm::zip_equal(parameters, entry->getArguments()))
    *parameter = argument;
  MLIRContext *ctx = b.getContext();
  queryBuffer = BuffersOp::create(b, BuffersType::get(ctx, 1, queryTile));
  buffers = BuffersOp::create(b, BuffersType::get(ctx, places, tile));
  warpRow = b.mul(b.shift(b.threadId(), 5), kWarpRows);
  // A fragment's rows are those of one warpgroup.
  laneRow = b.add(b.mul(b.shift(b.threadId(), 7), 64),
                  LaneRowOp::create(b, b.getI32Type()).getResult());
  b.loop(b.blockId(), count, b.gridSize(), {},
         [&](Value number, ValueRange) -> SmallVector<Value> {
           runItem(number);
           return {};
         });
  LLVM::ReturnOp::create(b, ValueRange{});
  return function;
}

Tensor PrefillAmpere::tensorOf(const Item &item, Value head, size_t pointer,
                               size_t row, size_t stride) {
  Value entry = b.element(entries, FIELD(item, entry), sizeof(moa_gpu_entry));
  Value base = b.loadField(entry, pointer, b.globalPointer());
  auto bytes = [&](size_t field) {
    return times(b.loadField(entry, field, b.getI64Type()), i64(kElement));
  };
  return {b.offset(base, times(wide(head), bytes(stride))), bytes(row)};
}

Item PrefillAmpere::loadItem(Value number) {
  Item item;
  item.fields = b.loadStruct(items, number, sizeof(moa_gpu_prefill_item));
  item.tiles = b.add(FIELD(item, window_tiles), FIELD(item, sink_tiles));
  item.callStart = b.sub(FIELD(item, position), FIELD(item, row));
  Value entry = b.element(entries, FIELD(item, entry), sizeof(moa_gpu_entry));
  item.tokens = b.loadField(entry, ENTRY_FIELD(tokens), b.getI32Type());
  Value head = FIELD(item, kv_head);
  item.keys = tensorOf(item, head, ENTRY_FIELD(k), ENTRY_FIELD(k_row_stride),
                       ENTRY_FIELD(k_head_stride));
  item.values = tensorOf(item, head, ENTRY_FIELD(v), ENTRY_FIELD(v_row_stride),
                         ENTRY_FIELD(v_head_stride));
  return item;
}

/// Tile of step t: down from the top, then the sink's from its highest. Tiles
/// are one block, so nothing of the sink is left behind those.
Value PrefillAmpere::tileNumber(const Item &item, Value step) {
  return b.select(b.less(step, FIELD(item, window_tiles)),
                  b.sub(FIELD(item, top), step),
                  b.sub(b.add(item.tiles, -1), step));
}

/// Table entry of step `step`; behind the last step that of the last.
Value PrefillAmpere::placeOf(const Item &item, Value step) {
  Value last = b.min(step, b.add(item.tiles, -1));
  return b.loadI32(tables, b.add(FIELD(item, table), tileNumber(item, last)));
}

//===----------------------------------------------------------------------===//
// Fetches
//===----------------------------------------------------------------------===//

void PrefillAmpere::fetchQueries(const Item &item) {
  Tensor q = tensorOf(item, FIELD(item, head), ENTRY_FIELD(q),
                      ENTRY_FIELD(q_row_stride), ENTRY_FIELD(q_head_stride));
  Value yes = arith::ConstantOp::create(b, b.getBoolAttr(true));
  FetchOp::create(b, rowOf(q, FIELD(item, row)), q.stride, FIELD(item, row),
                  item.tokens, form.headDim, queryBuffer, b.i32(0), yes);
}

/// Keys or values of step `step`, from a page or from the call's own tensor.
void PrefillAmpere::fetchTile(const Item &item, Value step, Value place,
                              bool values, Value use) {
  const Tensor &own = values ? item.values : item.keys;
  const int64_t rowBytes = form.headDim * kElement;
  Value fromCall = b.less(place, b.i32(0));
  Value row = b.sub(b.mul(tileNumber(item, step), form.keys), item.callStart);
  Value half =
      arith::AddIOp::create(b, times(wide(place), i64(2)), i64(values ? 1 : 0));
  Value page = b.offset(pool, times(half, i64(MOA_BLOCK_KEYS * rowBytes)));
  Value source = LLVM::SelectOp::create(b, fromCall, rowOf(own, row), page);
  FetchOp::create(b, source, b.select(fromCall, own.stride, i64(rowBytes)),
                  b.select(fromCall, row, b.i32(0)),
                  b.select(fromCall, item.tokens, b.i32(MOA_BLOCK_KEYS)),
                  form.headDim, buffers, use, b.less(step, item.tiles));
}

//===----------------------------------------------------------------------===//
// One item
//===----------------------------------------------------------------------===//

void PrefillAmpere::runItem(Value number) {
  // Nothing is overwritten that another warp still reads for the last item.
  BarrierOp::create(b, BarrierAction::Sync, b.i32(kMeet), threads);
  Item item = loadItem(number);
  fetchQueries(item);
  State state;
  for (int64_t use = 0; use < places - 1; ++use) {
    Value ahead = b.i32(use / 2);
    if (use % 2 == 0)
      state.place = placeOf(item, ahead);
    fetchTile(item, ahead, state.place, use % 2, b.i32(use));
  }
  prepareRows(item);
  queriesHeld = await(queryBuffer, queryTile, b.i32(0), places - 1);
  loadQueries();
  state.outputs.assign(form.headDim / 8, constant(4, 0));
  state.maximum = constant(2, -std::numeric_limits<float>::infinity());
  state.sum = constant(2, 0);
  state =
      State::from(b.loop(b.i32(0), item.tiles, b.i32(1), state.values(),
                         [&](Value t, ValueRange carried) {
                           return step(item, t, State::from(carried)).values();
                         }));
  store(item, state);
}

/// Positions and window starts of the thread's two rows, and the largest start
/// of the warp's.
void PrefillAmpere::prepareRows(const Item &item) {
  position = b.add(FIELD(item, position), warpRow);
  lanePosition = b.add(FIELD(item, position), laneRow);
  Type i32 = b.getI32Type();
  SmallVector<Value> loaded = b.branch(
      b.less(FIELD(item, starts), b.i32(0)), {i32, i32, i32},
      [&]() -> SmallVector<Value> {
        Value start = b.sub(b.add(lanePosition, 1), FIELD(item, local));
        Value last = b.sub(b.add(position, kWarpRows), FIELD(item, local));
        Value floor = FIELD(item, floor);
        return {b.max(start, floor), b.max(b.add(start, 8), floor),
                b.max(last, floor)};
      },
      [&]() -> SmallVector<Value> {
        Value index = b.add(FIELD(item, starts), laneRow);
        Value last = b.add(b.add(FIELD(item, starts), warpRow), kWarpRows - 1);
        return {b.loadI32(starts, index), b.loadI32(starts, b.add(index, 8)),
                b.loadI32(starts, last)};
      });
  start0 = loaded[0];
  start1 = loaded[1];
  startMax = loaded[2];
}

void PrefillAmpere::loadQueries() {
  queries.clear();
  if (form.headDim <= kQueriesInRegisters)
    for (int64_t k = 0; k < form.headDim / 16; ++k)
      queries.push_back(query(k));
}

/// The warp's rows of columns 16 k and on, a left operand.
Value PrefillAmpere::query(int64_t k) {
  if (k < int64_t(queries.size()))
    return queries[k];
  return LoadMatrixOp::create(b, packed(4), queriesHeld, warpRow, 16 * k,
                              false);
}

State PrefillAmpere::step(const Item &item, Value t, const State &old) {
  // Uses 2 t and 2 t + 1 are this tile's; places - 1 uses are fetched ahead, so
  // first values of a tile `places` / 2 - 1 ahead, then keys of the next one.
  Value use = b.mul(t, 2);
  State state = old;
  Value ahead = b.add(t, places / 2 - 1), next = b.add(t, places / 2);
  state.place = placeOf(item, next);

  Value keys = await(buffers, tile, use, places - 2);
  fetchTile(item, ahead, old.place, /*values=*/true, b.add(use, places - 1));
  Value scores = maskWhereNeeded(item, scoresOf(keys), tileNumber(item, t));
  auto pair = vector(2);
  Value high = RowReduceOp::create(b, pair, Reduction::Max, scores);
  high = LaneReduceOp::create(b, pair, Reduction::Max, high);
  high = arith::MaxNumFOp::create(b, high, old.maximum);
  Value bound = boundOf(high);
  Value exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  Value rescale = Exp2Op::create(b, pair, old.maximum, scale, bound);
  Value added = RowReduceOp::create(b, pair, Reduction::Add, exponents);
  state.maximum = high;
  state.sum = arith::AddFOp::create(
      b, arith::MulFOp::create(b, old.sum, rescale), added);
  for (Value &output : state.outputs)
    output = RowScaleOp::create(b, output.getType(), output, rescale);
  Value probabilities = pack(exponents);

  Value values = await(buffers, tile, b.add(use, 1), places - 2);
  fetchTile(item, next, state.place, /*values=*/false, b.add(use, places));
  addValues(values, probabilities, state.outputs);
  return state;
}

Value PrefillAmpere::scoresOf(Value keys) {
  SmallVector<Value> sums(form.keys / 8, constant(4, 0));
  for (int64_t k = 0; k < form.headDim / 16; ++k) {
    Value left = query(k);
    for (int64_t key = 0; key < form.keys; key += 16)
      multiply(
          left,
          LoadMatrixOp::create(b, packed(4), keys, b.i32(key), 16 * k, false),
          MutableArrayRef<Value>(sums).slice(key / 8, 2));
  }
  SmallVector<Value> elements;
  for (Value block : sums)
    elements.append(split(block));
  return join(elements);
}

/// Masks a tile that the diagonal or the left end of a window cuts.
Value PrefillAmpere::maskWhereNeeded(const Item &item, Value scores,
                                     Value number) {
  Value firstKey = b.mul(number, form.keys);
  Value end = b.add(firstKey, form.keys);
  Value diagonal = b.less(b.add(position, 1), end);
  Value edge = b.both(b.less(firstKey, startMax), b.less(sink, end));
  return b.branch(
      b.either(diagonal, edge), scores.getType(),
      [&]() -> SmallVector<Value> {
        return {MaskOp::create(b, scores.getType(), scores, lanePosition,
                               firstKey, start0, start1, sink)};
      },
      [&]() -> SmallVector<Value> { return {scores}; })[0];
}

/// The maximum times the scale; 0 for a row that has not seen a key yet, so
/// that no infinity is taken from another.
Value PrefillAmpere::boundOf(Value maximum) {
  auto pair = vector(2);
  Value scales = vector::BroadcastOp::create(b, pair, scale);
  Value none = constant(2, -std::numeric_limits<float>::infinity());
  Value empty =
      arith::CmpFOp::create(b, arith::CmpFPredicate::OEQ, maximum, none);
  return arith::SelectOp::create(b, empty, constant(2, 0),
                                 arith::MulFOp::create(b, maximum, scales));
}

void PrefillAmpere::addValues(Value values, Value probabilities,
                              SmallVectorImpl<Value> &outputs) {
  SmallVector<Value> pairs = split(probabilities);
  for (int64_t key = 0; key < form.keys; key += 16) {
    Value left = join(ValueRange(pairs).slice(key / 4, 4));
    for (int64_t d = 0; d < form.headDim; d += 16)
      multiply(left,
               LoadMatrixOp::create(b, packed(4), values, b.i32(key), d, true),
               MutableArrayRef<Value>(outputs).slice(d / 8, 2));
  }
}

/// Divides, rounds, and writes the rows that the call has.
void PrefillAmpere::store(const Item &item, const State &state) {
  auto pair = vector(2);
  Value sum = LaneReduceOp::create(b, pair, Reduction::Add, state.sum);
  Value inverse = ReciprocalOp::create(b, pair, sum);
  SmallVector<SmallVector<Value>> blocks; ///< The pair of each of two rows.
  for (Value output : state.outputs)
    blocks.push_back(
        split(pack(RowScaleOp::create(b, output.getType(), output, inverse))));
  Tensor out =
      tensorOf(item, FIELD(item, head), ENTRY_FIELD(out),
               ENTRY_FIELD(out_row_stride), ENTRY_FIELD(out_head_stride));
  Value column = b.mul(b.bitAnd(b.threadId(), 3), 2 * kElement);
  for (int64_t half : {0, 1}) {
    Value row = b.add(b.add(FIELD(item, row), laneRow), 8 * half);
    b.ifThen(b.less(row, item.tokens), [&] {
      Value place = b.offset(rowOf(out, row), column);
      for (auto [i, block] : llvm::enumerate(blocks))
        LLVM::StoreOp::create(b, block[half],
                              b.offset(place, int64_t(i) * 8 * kElement), 4);
    });
  }
}

int64_t moa::gpu::prefillAmpereBytes(const KernelForm &form, int64_t tiles) {
  int64_t padded = llvm::alignTo(form.headDim, MOA_GPU_PANEL);
  return padded * kElement * (form.rows + tiles * form.keys);
}

LLVM::LLVMFuncOp moa::gpu::buildPrefillAmpere(OpBuilder &builder, Location loc,
                                              StringRef name,
                                              const KernelForm &form,
                                              int64_t sharedBytes) {
  int64_t places = prefillAmpereBytes(form, 4) <= sharedBytes ? 4 : 2;
  return PrefillAmpere(builder, loc, form, places).build(name);
}
