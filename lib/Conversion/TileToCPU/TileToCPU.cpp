//===- TileToCPU.cpp - Tile kernels to CPU code ---------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Walks a kernel's operations in order and hands each to the lowering that its
// lanes ask for. Tiles and the state become scratch memory; block loops become
// scf loops over the item's ranges.
//
//===----------------------------------------------------------------------===//

#include "KernelForm.h"
#include "Lowering.h"
#include "moa/Conversion/Passes.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/Dialect/Math/IR/Math.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/Vector/IR/VectorOps.h"
#include "mlir/IR/BuiltinOps.h"
#include "moa/abi/kernel_args.h"
#include "llvm/ADT/TypeSwitch.h"

namespace moa {
#define GEN_PASS_DEF_CONVERTMOATILETOCPU
#include "moa/Conversion/Passes.h.inc"
} // namespace moa

using namespace mlir;
using namespace moa;
using namespace moa::cpu;

Value Scratch::take(Emitter &e, int64_t floats) {
  int64_t offset = used;
  used += (floats * 4 + 63) / 64 * 64;
  return e.offset(base, offset, e.b.getI8Type());
}

Value Item::field(size_t byteOffset, Type type) {
  Value address =
      e.offset(pointer, static_cast<int64_t>(byteOffset), e.b.getI8Type());
  unsigned align =
      isa<LLVM::LLVMPointerType>(type) ? 8 : type.getIntOrFloatBitWidth() / 8;
  return LLVM::LoadOp::create(e.b, e.loc, type, address, align);
}
Value Item::pointerField(size_t byteOffset) {
  return field(byteOffset, LLVM::LLVMPointerType::get(e.b.getContext()));
}
Value Item::intField(size_t byteOffset) {
  return e.toI64(field(byteOffset, e.b.getI32Type()));
}

Value Buffer::load(Emitter &e, Value from) const {
  return format == MOA_KV_E4M3   ? e.loadE4M3(from)
         : format == MOA_KV_INT8 ? e.loadInt8(from)
                                 : e.loadVector(from, element);
}

BlockTile AttentionLowering::blockTile(Value block, bool values) {
  Value entry = e.offset(item.pointerField(offsetof(moa_work_item, blocks)),
                         e.mul(block, sizeof(moa_key_block)), e.b.getI8Type());
  Item fields(e, entry);
  BlockTile tile;
  tile.rows = {fields.pointerField(values ? offsetof(moa_key_block, v)
                                          : offsetof(moa_key_block, k)),
               fields.field(values ? offsetof(moa_key_block, v_stride)
                                   : offsetof(moa_key_block, k_stride),
                            e.b.getI64Type()),
               element};
  if (kv8) {
    tile.format =
        fields.field(offsetof(moa_key_block, format), e.b.getI32Type());
    tile.scale = e.offset(fields.pointerField(offsetof(moa_key_block, scales)),
                          values ? 1 : 0, e.b.getF32Type());
  }
  return tile;
}

void AttentionLowering::forFormats(
    const BlockTile &tile, llvm::function_ref<void(const Buffer &)> body) {
  if (!tile.format)
    return body(tile.rows);
  auto codes = [&](int32_t format) {
    Value scale = e.load(tile.scale, e.b.getF32Type());
    if (format == MOA_KV_E4M3)
      scale = e.mulf(scale, e.f32(Emitter::kE4M3Factor));
    body({tile.rows.pointer, tile.rows.stride, e.b.getI8Type(), format, scale});
  };
  e.ifElse(
      e.equals(tile.format, e.i32(MOA_KV_MODEL)), [&] { body(tile.rows); },
      [&] {
        e.ifElse(
            e.equals(tile.format, e.i32(MOA_KV_E4M3)),
            [&] { codes(MOA_KV_E4M3); }, [&] { codes(MOA_KV_INT8); });
      });
}

void AttentionLowering::capScores(Value tile, int64_t count, float cap) {
  Value inverse = e.splat(1 / cap), factor = e.splat(cap);
  // Divisions of several vectors run beside each other.
  e.loop(0, count, 4 * e.lanes, [&](Value first) {
    for (int64_t v = 0; v < 4; ++v) {
      Value place = e.offset(e.offset(tile, first, e.b.getF32Type()),
                             v * e.lanes, e.b.getF32Type());
      Value score = e.loadVector(place, e.b.getF32Type());
      Value capped = e.mulf(e.tanh(e.mulf(score, inverse)), factor);
      e.storeVector(capped, place, e.b.getF32Type());
    }
  });
}

std::pair<Value, Value> AttentionLowering::segment(tile::Segment segment) {
  auto bound = [&](size_t offset) {
    return item.intField(offsetof(moa_work_item, ranges) + offset);
  };
  switch (segment) {
  case tile::Segment::Sink:
    return {e.i64(0), bound(offsetof(moa_block_ranges, sink_end))};
  case tile::Segment::Edge:
    return {bound(offsetof(moa_block_ranges, edge_begin)),
            bound(offsetof(moa_block_ranges, full_begin))};
  case tile::Segment::Full:
    return {bound(offsetof(moa_block_ranges, full_begin)),
            bound(offsetof(moa_block_ranges, diag_begin))};
  case tile::Segment::Diagonal:
    return {bound(offsetof(moa_block_ranges, diag_begin)),
            bound(offsetof(moa_block_ranges, end))};
  case tile::Segment::All:
    break;
  }
  llvm_unreachable("refused before the lowering starts");
}

namespace {

/// Lowers one kernel function.
class KernelLowering {
public:
  KernelLowering(func::FuncOp source, const CpuChip &chip)
      : source(source), chip(chip), builder(source) {}

  LogicalResult run();

private:
  void lower(Block &block);
  void lowerLoop(tile::ForBlocksOp op);

  func::FuncOp source;
  const CpuChip &chip;
  OpBuilder builder;
  std::optional<Emitter> emitter;
  Value item;
  std::unique_ptr<AttentionLowering> attention;
  /// Tiles of keys and values, by the value they replace.
  DenseMap<Value, BlockTile> tiles;
  /// Block numbers, by the block argument they replace.
  DenseMap<Value, Value> blocks;
};

struct ConvertMoaTileToCPU
    : public moa::impl::ConvertMoaTileToCPUBase<ConvertMoaTileToCPU> {
  using ConvertMoaTileToCPUBase::ConvertMoaTileToCPUBase;

  void runOnOperation() override {
    const CpuChip *found = findCpuChip(chip);
    if (!found) {
      InFlightDiagnostic diag =
          getOperation().emitError("unknown CPU variant '")
          << chip << "'; expected one of:";
      for (const CpuChip &known : cpuChips())
        diag << ' ' << known.name;
      return signalPassFailure();
    }
    SmallVector<func::FuncOp> kernels;
    getOperation().walk([&](func::FuncOp func) {
      if (func->hasAttr(tile::kConfigAttrName))
        kernels.push_back(func);
    });
    for (func::FuncOp kernel : kernels)
      if (failed(KernelLowering(kernel, *found).run()))
        return signalPassFailure();
  }
};

} // namespace

/// Whether the values that meet the step's probabilities skip zeros.
static bool skipsZero(tile::SoftmaxStepOp step) {
  return llvm::all_of(step.getProbabilities().getUsers(), [](Operation *user) {
    auto accumulate = dyn_cast<tile::AccumulateOp>(user);
    return accumulate && accumulate.getSkipZero();
  });
}

/// Element type of the keys, which queries and outputs share.
static Type elementType(func::FuncOp kernel) {
  Type type;
  kernel.walk([&](tile::LoadKeysOp op) {
    type = op.getTile().getType().getElementType();
  });
  return type;
}

/// Whether some keys or values may be in 8 bits.
static bool takesKv8(func::FuncOp kernel) {
  bool found = false;
  kernel.walk([&](tile::LoadKeysOp op) { found |= op.getKv8(); });
  return found;
}

LogicalResult KernelLowering::run() {
  if (failed(checkKernelForm(source)))
    return failure();
  auto pointer = LLVM::LLVMPointerType::get(builder.getContext());
  auto type = builder.getFunctionType({pointer, pointer}, {});
  auto target =
      func::FuncOp::create(builder, source.getLoc(), source.getName(), type);
  Block *entry = target.addEntryBlock();
  builder.setInsertionPointToStart(entry);
  emitter.emplace(builder, source.getLoc(), chip.vectorLanes);
  item = entry->getArgument(0);
  Scratch scratch(entry->getArgument(1));

  auto config = source->getAttrOfType<tile::ConfigAttr>(tile::kConfigAttrName);
  source.walk([&](tile::LoadQueriesOp op) {
    tile::TileType queries = op.getQueries().getType();
    auto create = config.getLanes() == tile::Lanes::Rows ? createRowLanes
                                                         : createDimLanes;
    attention =
        create(*emitter, chip, item, scratch, queries.getRows(),
               queries.getCols(), elementType(source), takesKv8(source));
  });
  lower(source.getBody().front());
  func::ReturnOp::create(builder, source.getLoc());
  target->setAttr("moa.scratch_bytes",
                  builder.getI64IntegerAttr(scratch.bytes()));
  source.erase();
  return success();
}

void KernelLowering::lowerLoop(tile::ForBlocksOp op) {
  auto [begin, end] = attention->segment(op.getSegment());
  emitter->loop(begin, end, 1, [&](Value block) {
    blocks[op.getBody().getArgument(0)] = block;
    lower(op.getBody().front());
  });
}

void KernelLowering::lower(Block &block) {
  for (Operation &op : block) {
    llvm::TypeSwitch<Operation *>(&op)
        .Case([&](tile::LoadQueriesOp) { attention->loadQueries(); })
        .Case([&](tile::InitOp) { attention->init(); })
        .Case([&](tile::ForBlocksOp loop) { lowerLoop(loop); })
        .Case<tile::LoadKeysOp, tile::LoadValuesOp>([&](auto load) {
          tiles[load.getTile()] = attention->blockTile(
              blocks.lookup(load.getBlock()),
              std::is_same_v<decltype(load), tile::LoadValuesOp>);
        })
        .Case([&](tile::ScoresOp scores) {
          attention->scores(tiles.lookup(scores.getKeys()));
        })
        .Case([&](tile::SoftCapOp softCap) {
          attention->softCap(softCap.getLog2Cap());
        })
        .Case([&](tile::MaskOp mask) {
          attention->mask(mask.getClasses(), blocks.lookup(mask.getBlock()));
        })
        .Case([&](tile::SoftmaxStepOp step) {
          attention->softmaxStep(skipsZero(step));
        })
        .Case([&](tile::AccumulateOp accumulate) {
          attention->accumulate(tiles.lookup(accumulate.getValues()),
                                accumulate.getSkipZero());
        })
        .Case([&](tile::StoreOp) { attention->store(); })
        .Case([&](tile::StorePartialOp) { attention->store(); })
        .Case([&](tile::CopyRowsOp copy) {
          lowerCopyRows(*emitter, item, copy.getDims(), copy.getType());
        })
        .Case([&](tile::QuantiseRowsOp quantise) {
          lowerQuantiseRows(*emitter, item, quantise.getDims(),
                            quantise.getType());
        })
        .Case([&](tile::RotateRowsOp rotate) {
          lowerRotateRows(*emitter, item, rotate.getDims(), rotate.getType(),
                          rotate.getRope());
        });
  }
}
