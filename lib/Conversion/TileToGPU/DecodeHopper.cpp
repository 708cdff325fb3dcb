//===- DecodeHopper.cpp - Decode on Hopper --------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// One warp loads pages through a ring, four or eight compute, on one or two
// pages at a time. The loading warp reads the ids of up to 32 pages at a time,
// a lane each, and hands them out one by one. What the pages behind those need,
// ids and the next item's tables, is on its way meanwhile: with memory
// saturated a read takes as long as a page.
//
//===----------------------------------------------------------------------===//

#include "Decode.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/LLVMIR/NVVMDialect.h"

using namespace mlir;
using namespace moa;
using namespace moa::gpu;

/// Bytes that every block has besides: barriers and what aligns them.
static constexpr int64_t kSharedLimit = 227 * 1024 - 1024;

/// Words that travel with a page that may be in 8 bits: where it lies, and the
/// scales of both halves of its place.
static constexpr int64_t kPlaceWords = 4, kScaleWords = MOA_KV8_SCALES;

namespace {

class DecodeHopper : public Decode {
public:
  DecodeHopper(OpBuilder &builder, Location loc, const KernelForm &form)
      : Decode(builder, loc, form), tile(pageTile()) {
    firstRows = {{Fresh::Both, {}}};
  }

private:
  /// Of the pages of large heads few fit in shared memory, and the outputs of
  /// their two column tiles not in the registers that nine warps leave a
  /// thread.
  int64_t streams() const override { return headDim() <= 128 ? 2 : 1; }
  /// Most that a thread can have: a quarter of a multiprocessor, with its 16384
  /// registers, has three of nine warps, and two of five.
  int64_t registers() const override { return streams() == 2 ? 168 : 255; }
  int64_t loaders() const override { return 1; }
  void placePages(int64_t bytes) override;
  void run() override;

  void produce();
  Value broadcast(Value value, Value lane);
  void putPage(Value place, Value use);
  void putModel(Value page, Value use, ValueRange words);
  void putCodes(Value place, Value use, ValueRange words);
  void consume(Value warp);

  SharedType pageTile() const {
    int64_t columns = llvm::alignTo(form.headDim, MOA_GPU_PANEL);
    return SharedType::get(b.getContext(), 2 * MOA_BLOCK_KEYS, columns,
                           form.element);
  }

  const SharedType tile; ///< A page: 64 rows of keys, then 64 of values.
  Value ring;
};

} // namespace

void DecodeHopper::placePages(int64_t bytes) {
  // Uses n and n + stages must belong to one stream: else a warp that waits
  // for the later one by parity passes before the earlier has landed.
  int64_t words = form.kv8 ? 4 * (kPlaceWords + kScaleWords) : 0;
  int64_t stages = (kSharedLimit - bytes) / (tile.getBytes() + words);
  stages = std::min<int64_t>(8, stages / streams() * streams());
  ring = RingOp::create(b,
                        RingType::get(b.getContext(), stages, tile,
                                      form.kv8 ? kPlaceWords + kScaleWords : 0),
                        kSharers);
}

void DecodeHopper::run() {
  auto roles = WarpRolesOp::create(b, warps());
  OpBuilder::InsertionGuard guard(b);
  b.createBlock(&roles.getProducer());
  produce();
  Block *consumer =
      b.createBlock(&roles.getConsumer(), {}, b.getI32Type(), b.getLoc());
  consume(consumer->getArgument(0));
}

//===----------------------------------------------------------------------===//
// The warp that loads
//===----------------------------------------------------------------------===//

/// It waits for no launch before this one: the pages, but for rows that come
/// from the call, and what says where they are have been written earlier.
///
/// Pages are put in runs of up to 32 of one item; the first run is of those
/// whose ids came with the block's cut. A run at hand, `own`, has its ids in
/// the lanes; those of the run behind are asked for before the first page is
/// put, and so are the tables of the item behind that run's.
void DecodeHopper::produce() {
  NVVM::PrefetchOp::create(b, NVVM::PrefetchCacheLevelAttr(),
                           NVVM::CacheEvictionPriorityAttr(), args, Value(),
                           b.getUnitAttr());
  Value lane = b.bitAnd(b.threadId(), 31);
  // Lanes behind the last page of an item read that page's id again.
  auto idsFrom = [&](const Pages &run, Value page) {
    return pageId(run, b.min(b.add(page, lane), b.add(run.to, -1)));
  };
  auto flatten = [](Value page, Value behind, Value ids, const Pages &own,
                    const Pages &next) {
    SmallVector<Value> values = {page, behind, ids};
    values.append(own.values());
    values.append(next.values());
    return values;
  };
  b.ifThen(b.less(begin, end), [&] {
    b.whileLoop(
        flatten(begin, b.min(b.add(begin, MOA_GPU_CUT_IDS), first.to), firstIds,
                first, second),
        [&](ValueRange v) { return b.less(v[0], end); },
        [&](ValueRange v) -> SmallVector<Value> {
          Value page = v[0], behind = v[1], ids = v[2];
          Pages own = Pages::from(v.slice(3, 5)),
                next = Pages::from(v.slice(8, 5));
          // Behind the block's last page nothing is read for use.
          Value stays =
              b.either(b.less(behind, own.to), b.lessEqual(end, behind));
          auto pick = [&](Value Pages::*part) {
            return b.select(stays, own.*part, next.*part);
          };
          Pages then = {pick(&Pages::item), pick(&Pages::to),
                        pick(&Pages::sinkEnd), pick(&Pages::sinkTable),
                        pick(&Pages::windowTable)};
          Value idsThen = idsFrom(then, behind);
          Pages afterwards = loadPages(itemBehind(then.item));
          b.loop(page, behind, b.i32(1), {},
                 [&](Value at, ValueRange) -> SmallVector<Value> {
                   putPage(broadcast(ids, b.sub(at, page)), b.sub(at, begin));
                   return {};
                 });
          return flatten(behind, b.min(b.add(behind, 32), then.to), idsThen,
                         then, afterwards);
        });
  });
}

/// The value that lane `lane` has.
Value DecodeHopper::broadcast(Value value, Value lane) {
  return NVVM::ShflOp::create(b, value.getType(), b.i32(-1), value, lane,
                              b.i32(31), NVVM::ShflKind::idx, UnitAttr());
}

void DecodeHopper::putPage(Value place, Value use) {
  if (!form.kv8)
    return putModel(place, use, {});
  SmallVector<Value> words(kPlaceWords, b.i32(0));
  words[0] = place;
  b.branch(
      hasCodes(place), {},
      [&] {
        putCodes(place, use, words);
        return SmallVector<Value>();
      },
      [&] {
        putModel(place, use, words);
        return SmallVector<Value>();
      });
}

/// Keys are half 2 * id of the pool, values the one behind. A step reads a page
/// once, and what else is in the L2 cache is worth more to the step.
void DecodeHopper::putModel(Value id, Value use, ValueRange words) {
  auto put = PutOp::create(b, ring, use, words);
  OpBuilder::InsertionGuard guard(b);
  Block *body = b.createBlock(&put.getBody(), {},
                              {tile, BarrierType::get(b.getContext())},
                              {b.getLoc(), b.getLoc()});
  for (int64_t half : {0, 1})
    for (int64_t panel = 0; panel < tile.getPanels(); ++panel)
      CopyInOp::create(b, args, b.i32(panel * MOA_GPU_PANEL), b.i32(0),
                       b.add(b.mul(id, 2), half), body->getArgument(0),
                       b.getDenseI64ArrayAttr({half, panel}),
                       body->getArgument(1), /*read_once=*/true);
}

/// Codes of keys and values of a block, and the scales of its page.
void DecodeHopper::putCodes(Value place, Value use, ValueRange words) {
  const SharedType codes = tile.codes();
  auto put = PutOp::create(b, ring, use, words);
  OpBuilder::InsertionGuard guard(b);
  Block *body = b.createBlock(&put.getBody(), {},
                              {codes, BarrierType::get(b.getContext())},
                              {b.getLoc(), b.getLoc()});
  Value map = b.offset(args, int64_t(offsetof(moa_gpu_decode_args, codes)));
  // Page and half, twice: quarters of pages.
  Value quarter =
      b.mul(b.bitAnd(place, (int64_t(1) << MOA_GPU_CODES_SHIFT) - 1), 2);
  for (int64_t half : {0, 1})
    for (int64_t panel = 0; panel < codes.getPanels(); ++panel)
      CopyInOp::create(b, map, b.i32(panel * codes.getPanelColumns()), b.i32(0),
                       b.add(quarter, half), body->getArgument(0),
                       b.getDenseI64ArrayAttr({half, panel}),
                       body->getArgument(1), /*read_once=*/true);
  Value scales = b.loadField(args, offsetof(moa_gpu_decode_args, scales),
                             b.globalPointer());
  CopyWordsOp::create(b, b.element(scales, pageOf(place), 4 * MOA_KV8_SCALES),
                      body->getArgument(1));
}

//===----------------------------------------------------------------------===//
// The warps that compute
//===----------------------------------------------------------------------===//

/// The line and its items lie ready; what else there is to read, and all
/// memory that is written, may be in use by launches before this one. The next
/// one starts where there is room, though they run still: it reads no more than
/// this one does before they have ended.
void DecodeHopper::consume(Value number) {
  Facts front = loadFacts(firstItem);
  b.ifThen(b.equal(b.threadId(), 0), [&] { LaunchNextOp::create(b); });
  WaitLaunchesOp::create(b);
  takePlace(number);
  SmallVector<Type> types(form.kv8 ? kPlaceWords + kScaleWords : 0,
                          b.getI32Type());
  auto body = [&](const Share &share, ValueRange) -> SmallVector<Value> {
    loadQueries(share);
    // Use n of the ring is stream n % streams()'s.
    Value use = b.sub(share.from, begin);
    Value first =
        b.add(share.from, b.bitAnd(b.sub(stream, use), streams() - 1));
    SmallVector<Value> result = b.loop(
        first, share.to, b.i32(streams()), flatten(emptyState()),
        [&](Value page, ValueRange carried) {
          Value use = b.sub(page, begin);
          auto got = GetOp::create(b, tile, types, ring, use);
          Value held = got.getTile();
          Codes codes;
          if (form.kv8)
            codes = codesOf(got.getWords().front(),
                            got.getWords().take_back(kScaleWords));
          Value firstKey = b.mul(blockNumber(share, page), MOA_BLOCK_KEYS);
          auto keys = [&]() -> Half {
            addFresh(share, page, firstKey, held, Fresh::Both);
            return {held, 0};
          };
          auto values = [&]() -> Half { return {held, MOA_BLOCK_KEYS}; };
          State state = step(firstKey, rebuild(carried), keys, values, codes);
          ReleaseOp::create(b, ring, use);
          return flatten(state);
        });
    mergeWarps(share, rebuild(result));
    return {};
  };
  forShares(front, {}, body);
}

LLVM::LLVMFuncOp moa::gpu::buildDecodeHopper(OpBuilder &builder, Location loc,
                                             StringRef name,
                                             const KernelForm &form) {
  return DecodeHopper(builder, loc, form).build(name);
}
