//===- PrefillAmpere.cpp - Attention of many rows from sm_80 on -----------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Every warp has 16 query rows and every thread fetches. A step takes a tile,
// or a part of one where large elements leave no room for a whole. Keys and
// values of a step follow one another through the same places in shared memory,
// so that it is two turns alike:
//
//   await keys(t);   fetch ahead; S = Q K(t); mask; softmax(S)
//   await values(t); fetch ahead; O = O * rescale + round(P) V(t)
//
//===----------------------------------------------------------------------===//

#include "Kernels.h"
#include "Prefill.h"
#include "ScoreScale.h"
#include "WarpProducts.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "llvm/Support/MathExtras.h"
#include <limits>

using namespace mlir;
using namespace moa;
using namespace moa::gpu;
using namespace moa::gpu::prefill;

namespace {

constexpr int64_t kMeet = 1;      ///< Named barrier between items.
constexpr int64_t kWarpRows = 16; ///< Query rows of a warp.

int64_t elementBytes(const KernelForm &form) {
  return form.element.getIntOrFloatBitWidth() / 8;
}

/// Columns of a tile in shared memory: whole panels of 128 bytes.
int64_t paddedColumns(const KernelForm &form) {
  return llvm::alignTo(form.headDim, 128 / elementBytes(form));
}

int64_t threadsFor(const KernelForm &form) {
  return form.rows / kWarpRows * 32;
}

/// Of a thread: half of what there is where that suffices, so that two blocks
/// of 256 threads share a multiprocessor.
int64_t registersFor(const KernelForm &form) {
  return form.headDim <= 64 && !form.element.isF32() ? 128 : 255;
}

/// A tensor of the call, of one head.
struct Tensor {
  Value base;
  Value stride; ///< Bytes between rows, i64.
};

struct Item : ItemFields {
  Value tiles;     ///< Window and sink tiles.
  Value steps;     ///< The parts of all tiles.
  Value callStart; ///< Position of the call's row 0.
  Value tokens;    ///< Rows of the call's tensors.
  Tensor keys, values;
};
#define ENTRY_FIELD(name) offsetof(moa_gpu_entry, name)

/// What a step hands to the next.
struct State {
  SmallVector<Value> outputs; ///< 8 columns each.
  Value maximum, sum;         ///< Of scaled scores; of probabilities.
  Value place; ///< Table entry of the newest step whose keys were fetched.

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
                const AmpereShape &shape)
      : b(loc, builder), form(form), shape(shape),
        products(form.element.isF32() ? makeProductsF32(b, this->form)
                                      : makeProducts16(b, this->form)) {
    MLIRContext *ctx = b.getContext();
    int64_t padded = paddedColumns(form);
    queryTile = SharedType::get(ctx, form.rows, padded, form.element);
    tile = SharedType::get(ctx, shape.keys, padded, form.element);
  }
  LLVM::LLVMFuncOp build(StringRef name);

private:
  void runItem(Value number);
  Item loadItem(Value number);
  Tensor tensorOf(const Item &item, Value head, size_t pointer, size_t row,
                  size_t stride);
  Value tileNumber(const Item &item, Value step);
  Value partOf(Value step);

  void fetchQueries(const Item &item);
  Value placeOf(const Item &item, Value step);
  void fetchTile(const Item &item, Value step, Value place, bool values,
                 Value use);
  State step(const Item &item, Value step, const State &old);
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
  /// Steps of a tile, a power of two.
  int64_t parts() const { return form.keys / shape.keys; }

  KernelBuilder b;
  const KernelForm form;
  const AmpereShape shape;
  const std::unique_ptr<WarpProducts> products;
  SharedType queryTile, tile;

  Value entries, pool, items, tables, starts, count, sink; ///< Parameters.
  ScoreScale scale;
  Value queryBuffer, buffers;
  Value warpRow; ///< First of the warp's rows in the item.
  Value laneRow; ///< First of the thread's two rows in the item.
  Window window; ///< Of the warp's rows of the item at hand.
};

} // namespace

LLVM::LLVMFuncOp PrefillAmpere::build(StringRef name) {
  LLVM::LLVMFuncOp function = b.attentionKernel(
      name, sizeof(moa_gpu_prefill_entries), 8, 4, 4, 2,
      LaunchAttr::get(b.getContext(), threadsFor(form), registersFor(form),
                      form.rows, form.keys));
  OpBuilder::InsertionGuard guard(b);
  Block *entry = function.addEntryBlock(b);
  b.setInsertionPointToStart(entry);
  Value *parameters[] = {&entries, &pool,  &items, &tables,
                         &starts,  &count, &sink};
  for (auto [i, parameter] : llvm::enumerate(parameters))
    *parameter = entry->getArgument(i);
  scale = ScoreScale(b, form, entry->getArguments().back());
  MLIRContext *ctx = b.getContext();
  queryBuffer = BuffersOp::create(b, BuffersType::get(ctx, 1, queryTile));
  buffers = BuffersOp::create(b, BuffersType::get(ctx, shape.places, tile));
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
    return times(b.loadField(entry, field, b.getI64Type()),
                 i64(elementBytes(form)));
  };
  return {b.offset(base, times(wide(head), bytes(stride))), bytes(row)};
}

Item PrefillAmpere::loadItem(Value number) {
  Item item;
  item.fields = b.loadStruct(items, number, sizeof(moa_gpu_prefill_item));
  item.tiles = b.add(FIELD(item, window_tiles), FIELD(item, sink_tiles));
  item.steps = b.mul(item.tiles, parts());
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

/// Tile of a step: down from the top, then the sink's from its highest. Tiles
/// are one block, so nothing of the sink is left behind those.
Value PrefillAmpere::tileNumber(const Item &item, Value step) {
  Value t = b.shift(step, llvm::Log2_64(parts()));
  return b.select(b.less(t, FIELD(item, window_tiles)),
                  b.sub(FIELD(item, top), t), b.sub(b.add(item.tiles, -1), t));
}

/// First key of a step in its tile.
Value PrefillAmpere::partOf(Value step) {
  return b.mul(b.bitAnd(step, parts() - 1), shape.keys);
}

/// Table entry of step `step`; behind the last step that of the last.
Value PrefillAmpere::placeOf(const Item &item, Value step) {
  Value last = b.min(step, b.add(item.steps, -1));
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
                  item.tokens, form.headDim, queryBuffer, b.i32(0), yes,
                  /*codes=*/Value());
}

/// Keys or values of step `step`, from a page or from the call's own tensor.
void PrefillAmpere::fetchTile(const Item &item, Value step, Value place,
                              bool values, Value use) {
  const Tensor &own = values ? item.values : item.keys;
  const int64_t rowBytes = form.headDim * elementBytes(form);
  Value fromCall = b.less(place, b.i32(0));
  Value part = partOf(step);
  Value row = b.add(
      b.sub(b.mul(tileNumber(item, step), form.keys), item.callStart), part);
  Value half =
      arith::AddIOp::create(b, times(wide(place), i64(2)), i64(values ? 1 : 0));
  Value page = b.offset(pool, times(half, i64(MOA_BLOCK_KEYS * rowBytes)));
  page = b.offset(page, b.mul(part, rowBytes));
  Value source = LLVM::SelectOp::create(b, fromCall, rowOf(own, row), page);
  FetchOp::create(b, source, b.select(fromCall, own.stride, i64(rowBytes)),
                  b.select(fromCall, row, part),
                  b.select(fromCall, item.tokens, b.i32(MOA_BLOCK_KEYS)),
                  form.headDim, buffers, use, b.less(step, item.steps),
                  /*codes=*/Value());
}

//===----------------------------------------------------------------------===//
// One item
//===----------------------------------------------------------------------===//

void PrefillAmpere::runItem(Value number) {
  // Nothing is overwritten that another warp still reads for the last item.
  BarrierOp::create(b, BarrierAction::Sync, b.i32(kMeet), threadsFor(form));
  Item item = loadItem(number);
  fetchQueries(item);
  State state;
  for (int64_t use = 0; use < shape.places - 1; ++use) {
    Value ahead = b.i32(use / 2);
    if (use % 2 == 0)
      state.place = placeOf(item, ahead);
    fetchTile(item, ahead, state.place, use % 2, b.i32(use));
  }
  window = loadWindow(b, item, starts, warpRow, laneRow, kWarpRows);
  Value queries = await(queryBuffer, queryTile, b.i32(0), shape.places - 1);
  products->setQueries(queries, warpRow);
  state.outputs = products->noOutputs();
  state.maximum = b.splat(2, -std::numeric_limits<float>::infinity());
  state.sum = b.splat(2, 0);
  state =
      State::from(b.loop(b.i32(0), item.steps, b.i32(1), state.values(),
                         [&](Value t, ValueRange carried) {
                           return step(item, t, State::from(carried)).values();
                         }));
  store(item, state);
}

State PrefillAmpere::step(const Item &item, Value t, const State &old) {
  // Uses 2 t and 2 t + 1 are this step's; places - 1 uses are fetched ahead, so
  // first values `places` / 2 - 1 steps ahead, then keys of the next one.
  Value use = b.mul(t, 2);
  State state = old;
  Value ahead = b.add(t, shape.places / 2 - 1),
        next = b.add(t, shape.places / 2);
  state.place = placeOf(item, next);

  Value keys = await(buffers, tile, use, shape.places - 2);
  fetchTile(item, ahead, old.place, /*values=*/true,
            b.add(use, shape.places - 1));
  Value firstKey = b.add(b.mul(tileNumber(item, t), form.keys), partOf(t));
  Value raw = scale.raw(b, products->scores(keys, shape.keys));
  Value scores = maskWhereNeeded(b, window, raw, firstKey, shape.keys, sink);
  auto pair = b.f32s(2);
  state.maximum =
      arith::MaxNumFOp::create(b, scaledMaximum(b, scores, scale), old.maximum);
  Value bound = boundOf(b, state.maximum, /*mayBeEmpty=*/true);
  Value exponents = Exp2Op::create(b, scores.getType(), scores, scale, bound);
  Value rescale = Exp2Op::create(b, pair, old.maximum, b.f32(1), bound);
  Value added = RowReduceOp::create(b, pair, Reduction::Add, exponents);
  state.sum = arith::AddFOp::create(
      b, arith::MulFOp::create(b, old.sum, rescale), added);
  products->rescale(rescale, state.outputs);
  SmallVector<Value> probabilities = products->leftOf(exponents);

  Value values = await(buffers, tile, b.add(use, 1), shape.places - 2);
  fetchTile(item, next, state.place, /*values=*/false,
            b.add(use, shape.places));
  products->addValues(values, probabilities, state.outputs);
  return state;
}

/// Divides, rounds, and writes the rows that the call has.
void PrefillAmpere::store(const Item &item, const State &state) {
  auto pair = b.f32s(2);
  Value sum = LaneReduceOp::create(b, pair, Reduction::Add, state.sum);
  Value inverse = ReciprocalOp::create(b, pair, sum);
  SmallVector<Value> scaled;
  for (Value output : state.outputs)
    scaled.push_back(RowScaleOp::create(b, output.getType(), output, inverse));
  SmallVector<WarpProducts::Values> rounded = products->rounded(scaled);
  Tensor out =
      tensorOf(item, FIELD(item, head), ENTRY_FIELD(out),
               ENTRY_FIELD(out_row_stride), ENTRY_FIELD(out_head_stride));
  for (int64_t half : {0, 1}) {
    Value row = b.add(b.add(FIELD(item, row), laneRow), 8 * half);
    b.ifThen(b.less(row, item.tokens),
             [&] { products->storeRow(rounded, half, rowOf(out, row)); });
  }
}

int64_t moa::gpu::prefillAmpereBytes(const KernelForm &form,
                                     const AmpereShape &shape) {
  return paddedColumns(form) * elementBytes(form) *
         (form.rows + shape.places * shape.keys);
}

AmpereShape moa::gpu::prefillAmpereShape(const KernelForm &form,
                                         int64_t sharedBytes) {
  auto fits = [&](AmpereShape shape) {
    return prefillAmpereBytes(form, shape) <= sharedBytes;
  };
  AmpereShape shape = {form.keys, 2};
  if (form.element.isF32()) {
    // Scores and probabilities stay in registers beside outputs.
    if (form.headDim > 64)
      shape.keys /= 2;
    // A fetch takes a row with eight threads, and a product 16 keys.
    const int64_t least = std::max<int64_t>(16, threadsFor(form) / 8);
    while (!fits(shape) && shape.keys > least)
      shape.keys /= 2;
  }
  if (fits({shape.keys, 4}))
    shape.places = 4;
  return shape;
}

LLVM::LLVMFuncOp moa::gpu::buildPrefillAmpere(OpBuilder &builder, Location loc,
                                              StringRef name,
                                              const KernelForm &form,
                                              const AmpereShape &shape) {
  return PrefillAmpere(builder, loc, form, shape).build(name);
}
