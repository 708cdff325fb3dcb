//===- FakeKernels.cpp - Kernels of the fake driver -----------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Prefill, decode, append, rope and quantise, and prepare, that do what
// abi/gpu_args.h says to the letter. A masked key has weight 0 but its values
// are multiplied all the same, as kernels do: what is not finite leaks.
//
//===----------------------------------------------------------------------===//

#include "FakeCodes.h"
#include "FakeCuda.h"
#include "FakeTensor.h"

#include "moa/abi/gpu_step.h"
#include "moa/abi/rope.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace moa::fake {
namespace {

struct Row {
  std::vector<double> scores;
  std::vector<const char *> values; ///< Null: a row of zeros.
  std::vector<bool> visible;

  void add(const Kernel &kernel, const char *q, const char *k, const char *v,
           double scaleLog2, bool seen) {
    double dot = 0;
    for (int64_t d = 0; d < kernel.dim; ++d)
      dot += loadElement(q + kernel.bytes() * d, kernel.dtype) *
             (k ? loadElement(k + kernel.bytes() * d, kernel.dtype) : 0);
    scores.push_back(dot * scaleLog2);
    values.push_back(v);
    visible.push_back(seen);
  }
  /// `parts`: the keys that begin one. With `bits` the sums of a part are
  /// rounded to so many: those of a row then say how it was cut.
  void write(const Kernel &kernel, char *out,
             const std::vector<size_t> &parts = {}, int bits = 0) const {
    double top = -INFINITY, sum = 0;
    for (size_t j = 0; j < scores.size(); ++j)
      if (visible[j])
        top = std::max(top, scores[j]);
    std::vector<double> result(kernel.dim), part(kernel.dim);
    auto endPart = [&] {
      for (int64_t d = 0; d < kernel.dim; ++d) {
        int exponent = 0;
        const double digits = std::frexp(part[d], &exponent);
        result[d] += bits ? std::ldexp(std::rint(std::ldexp(digits, bits)),
                                       exponent - bits)
                          : part[d];
        part[d] = 0;
      }
    };
    for (size_t j = 0; j < scores.size(); ++j) {
      if (std::find(parts.begin(), parts.end(), j) != parts.end())
        endPart();
      double p = visible[j] ? std::exp2(scores[j] - top) : 0;
      sum += p;
      for (int64_t d = 0; d < kernel.dim; ++d)
        part[d] += p * (values[j] ? loadElement(values[j] + kernel.bytes() * d,
                                                kernel.dtype)
                                  : 0);
    }
    endPart();
    for (int64_t d = 0; d < kernel.dim; ++d)
      storeElement(result[d] / sum, kernel.dtype, out + kernel.bytes() * d);
  }
};

struct Prefill {
  Kernel kernel;
  Tensor pool;
  struct Entry {
    Tensor q, k, v, out;
  };
  std::vector<Entry> entries;
  const moa_gpu_prefill_item *items;
  const int32_t *tables, *starts;
  int32_t count, sink;
  float scaleLog2;

  void tile(const moa_gpu_prefill_item &item, Row &row, const char *q,
            int64_t position, int64_t start, int64_t first,
            int64_t keys) const {
    const Entry &entry = entries[item.entry];
    for (int64_t j = first; j < first + keys; ++j) {
      bool seen = moa_visible(position, j, start, sink) != 0;
      int32_t place = tables[item.table + j / 64];
      const char *k, *v;
      if (place == MOA_GPU_FROM_CALL) {
        int64_t at = j - (item.position - item.row);
        k = entry.k.at(at, item.kv_head);
        v = entry.v.at(at, item.kv_head);
      } else {
        k = pool.at(j % 64, 2 * int64_t(place));
        v = pool.at(j % 64, 2 * int64_t(place) + 1);
      }
      row.add(kernel, q, k, v, scaleLog2, seen);
    }
  }

  void operator()() const {
    for (int32_t i = 0; i < count; ++i) {
      const moa_gpu_prefill_item &item = items[i];
      const Entry &entry = entries[item.entry];
      for (int64_t r = 0; r < kernel.rows; ++r) {
        const char *q = entry.q.at(item.row + r, item.head);
        char *out = entry.out.at(item.row + r, item.head);
        if (!q || !out)
          continue;
        int64_t position = item.position + r;
        int64_t start =
            item.starts < 0
                ? std::max<int64_t>(position + 1 - item.local, item.floor)
                : starts[item.starts + r];
        Row row;
        for (int64_t t = 0; t < item.window_tiles; ++t)
          tile(item, row, q, position, start, (item.top - t) * kernel.keys,
               kernel.keys);
        for (int64_t t = item.sink_tiles - 1; t >= 0; --t)
          tile(item, row, q, position, start, t * kernel.keys, kernel.keys);
        if (item.sink_block)
          tile(item, row, q, position, start, item.sink_tiles * kernel.keys,
               64);
        row.write(kernel, out);
      }
    }
  }
};

struct Decode {
  Kernel kernel;
  moa_gpu_decode_args args;
  const moa_gpu_decode_item *items;
  const moa_gpu_line *line;
  const int32_t *tables;
  const moa_gpu_cut *cuts;
  char *partials;
  int32_t *counters;
  int32_t sink;
  float scaleLog2;
  unsigned grid;

  char *at(const moa_gpu_rows &rows, int64_t place, int64_t token,
           int64_t head) const {
    if (rows.unit % 8 && rows.unit != 1)
      fakeCuda()->fault("a stride is not a multiple of 8");
    return static_cast<char *>(rows.base) +
           2 * (place * rows.unit + token * rows.token_stride +
                head * rows.head_stride);
  }

  /// Stores the fresh keys and values that lie in the item's pages and zeroes
  /// what lies behind them.
  void store(const moa_gpu_decode_item &item, const Tensor &pool,
             const std::vector<int32_t> &ids) const {
    const int64_t bytes = 2 * kernel.dim;
    for (int64_t j = item.length - item.fresh; j < item.length; ++j) {
      const int64_t block = j / 64;
      if (block >= item.sink_pages && block < item.window_begin)
        continue;
      const int64_t id =
          ids[size_t(block < item.sink_pages
                         ? block
                         : block - item.window_begin + item.sink_pages)];
      for (int half : {0, 1}) {
        const moa_gpu_rows &rows = half ? args.v : args.k;
        std::memcpy(pool.at(j % 64, 2 * id + half),
                    at(rows, half ? item.v : item.k,
                       j - (item.length - item.fresh), item.kv_head),
                    bytes);
        bool freshPage = block * 64 >= item.length - item.fresh;
        if (item.zero >= 0 && (item.zero || freshPage) &&
            (j == item.length - 1 || j % 64 == 63))
          for (int64_t r = j % 64 + 1; r < 64; ++r, ++fakeCuda()->zeroedRows)
            std::memset(pool.at(r, 2 * id + half), 0, bytes);
      }
    }
  }

  /// What the codes of keys or values at a place stand for.
  std::vector<char> elements(int32_t place, bool values) const {
    const int32_t format = place >> MOA_GPU_CODES_SHIFT, half = place & 1;
    const int64_t page = place >> 1 & (MOA_GPU_CODES_PAGES - 1);
    const Tensor codes = kernel.maps
                             ? fromMap(args.codes)
                             : Tensor{static_cast<char *>(args.pool), 64,
                                      INT64_MAX, kernel.dim, 64 * kernel.dim};
    const double scale = args.scales[page * 4 + half * 2 + values];
    std::vector<char> result(64 * kernel.dim * 2);
    for (int64_t i = 0; i < 64 * kernel.dim; ++i) {
      const char *row = codes.at(i / kernel.dim, 4 * page + 2 * half + values);
      storeElement(scale * valueOf(uint8_t(row[i % kernel.dim]), format),
                   kernel.dtype, result.data() + 2 * i);
    }
    return result;
  }

  void operator()() const {
    // Where a kernel may write.
    const int64_t bytes = moa_gpu_partial_bytes(grid, kernel.rows, kernel.dim);
    const auto own = fakeCuda()->memory.find(uintptr_t(partials));
    if (own == fakeCuda()->memory.end() || int64_t(own->second.size) < bytes)
      return fakeCuda()->fault("partial results have no memory of their own");
    std::memset(partials, 0xab, bytes);
    const Tensor pool =
        kernel.maps ? fromMap(args.map) : poolAt(uint64_t(args.pool), kernel);
    if (line->items && line->first[line->items] != line->pages)
      fakeCuda()->fault("a line does not end with its pages");
    std::vector<int32_t> lineIds;
    for (int32_t i = 0; i < line->items; ++i) {
      if (counters[i])
        fakeCuda()->fault("a counter is not zero");
      const moa_gpu_decode_item &item = items[i];
      const int64_t last = (item.length - 1) / 64;
      const int64_t count = item.sink_pages + last + 1 - item.window_begin;
      if (line->first[i + 1] - line->first[i] != count)
        fakeCuda()->fault("a line does not count its pages");
      if (item.tokens < 1 || item.tokens * kernel.group > kernel.rows)
        fakeCuda()->fault("an item has more columns than the kernel, or none");
      std::vector<int32_t> ids;
      std::vector<std::vector<char>> unpacked;
      std::vector<std::pair<const char *, const char *>> rows;
      for (int64_t p = 0; p < count; ++p) {
        ids.push_back(
            tables[(p < item.sink_pages ? item.table : item.window_table) + p]);
        if (ids.back() < 0) {
          fakeCuda()->fault("a decoded row reads from the call");
          return;
        }
      }
      lineIds.insert(lineIds.end(), ids.begin(), ids.end());
      store(item, pool, ids);
      for (int32_t id : ids)
        if (id >= 1 << MOA_GPU_CODES_SHIFT) {
          unpacked.push_back(elements(id, false));
          unpacked.push_back(elements(id, true));
          rows.push_back({unpacked.end()[-2].data(), unpacked.back().data()});
        } else {
          rows.push_back(
              {pool.at(0, 2 * int64_t(id)), pool.at(0, 2 * int64_t(id) + 1)});
        }
      const std::vector<size_t> parts = partsOf(i);
      for (int64_t column = 0; column < item.tokens * kernel.group; ++column) {
        const int64_t token = column / kernel.group;
        const int64_t head =
            item.kv_head * kernel.group + column % kernel.group;
        const int64_t position = item.length - item.tokens + token;
        Row row;
        for (int64_t p = 0; p < count; ++p) {
          int64_t block =
              p < item.sink_pages ? p : p - item.sink_pages + item.window_begin;
          // Behind the last key of a page with fresh ones kernels see zeros.
          const bool grown = block * 64 + 64 > item.length - item.fresh;
          // A kernel leaves the mask out where all columns see the whole page.
          const bool full =
              block * 64 + 64 <= item.length - item.tokens + 1 &&
              (item.start_max <= block * 64 || block * 64 + 64 <= sink);
          for (int64_t j = block * 64; j < block * 64 + 64; ++j) {
            const bool seen =
                moa_visible(position, j, item.starts[column], sink) != 0;
            if (full && !seen)
              fakeCuda()->fault("a full page has a masked key");
            row.add(kernel, at(args.q, item.q, item.token + token, head),
                    rows[p].first + j % 64 * 2 * kernel.dim,
                    grown && j >= item.length
                        ? nullptr
                        : rows[p].second + j % 64 * 2 * kernel.dim,
                    scaleLog2, seen);
          }
        }
        // Kernels of more columns have another order of sums.
        row.write(kernel, at(args.out, item.out, item.token + token, head),
                  parts, kernel.rows > 8 ? 11 : 12);
      }
    }
    checkCuts(lineIds);
  }

  /// Keys of the item's pages, one after the other, that begin a block's part.
  std::vector<size_t> partsOf(int32_t item) const {
    std::vector<size_t> parts;
    for (unsigned block = 0; block < grid; ++block) {
      const moa_gpu_cut &cut = cuts[block];
      if (cut.begin < cut.end && cut.begin > line->first[item] &&
          cut.begin < line->first[item + 1])
        parts.push_back(size_t(cut.begin - line->first[item]) * 64);
    }
    return parts;
  }

  int32_t itemOf(int32_t page) const {
    int32_t item = 0;
    while (line->first[item + 1] <= page)
      ++item;
    return item;
  }

  /// Whether `parts` are the blocks that have pages of the item.
  bool sameParts(const moa_gpu_parts &parts, int32_t item) const {
    for (int32_t block = 0; block < int32_t(grid); ++block) {
      const moa_gpu_cut &cut = cuts[block];
      const bool has = cut.begin < cut.end &&
                       cut.begin < line->first[item + 1] &&
                       cut.end > line->first[item];
      if (has != (block >= parts.block && block < parts.block + parts.count))
        return false;
    }
    return true;
  }

  /// Blocks find the line's pages, each once and in its order.
  void checkCuts(const std::vector<int32_t> &lineIds) const {
    int32_t reached = 0;
    for (unsigned block = 0; block < grid; ++block) {
      const moa_gpu_cut &cut = cuts[block];
      if (cut.begin != reached || cut.end < cut.begin)
        fakeCuda()->fault("a block does not begin where the one before ends");
      reached = cut.end;
      const bool has = cut.begin < cut.end;
      if (has && (line->first[cut.item] > cut.begin ||
                  line->first[cut.item + 1] <= cut.begin))
        fakeCuda()->fault("a block's first page is not of its item");
      for (int32_t i = 0; has && i < MOA_GPU_CUT_IDS; ++i)
        if (cut.ids[i] !=
            lineIds[size_t(std::min(cut.begin + i, cut.own.to - 1))])
          fakeCuda()->fault("a block has the id of another page");
      if (has && (!sameParts(cut.front, cut.item) ||
                  !sameParts(cut.back, itemOf(cut.end - 1))))
        fakeCuda()->fault("a block counts the parts of an item wrong");
    }
    if (reached != int32_t(lineIds.size()))
      fakeCuda()->fault("blocks leave pages of the line out");
  }
};

/// The kernel's own functions, thread by thread.
struct Prepare {
  moa_gpu_prepare_args args;
  unsigned grid;

  void operator()() const {
    const int32_t threads = MOA_GPU_PREPARE_THREADS;
    for (int32_t layer = 0; layer < int32_t(grid); ++layer) {
      moa_gpu_prepare_shared shared;
      for (int32_t t = 0; t < threads; ++t)
        moa_gpu_prepare_apply(&args, layer, t, threads, &shared);
      std::vector<int32_t> own;
      for (int32_t t = 0; t < threads; ++t)
        own.push_back(moa_gpu_prepare_items(&args, layer, t, threads, &shared));
      int32_t before = 0;
      for (int32_t t = 0; t < threads; ++t) {
        moa_gpu_prepare_line(&args, layer, t, threads, before, own[t], &shared);
        before += own[t];
      }
      for (int32_t t = 0; t < threads; ++t)
        moa_gpu_prepare_apart(&args, layer, t, threads, &shared);
      for (int32_t t = 0; t < threads; ++t)
        moa_gpu_prepare_cuts(&args, layer, t, threads, &shared);
    }
  }
};

struct Append {
  Kernel kernel;
  const moa_append_item *items;
  int32_t count;

  void operator()() const {
    const int64_t bytes = kernel.dim * kernel.bytes();
    for (int32_t i = 0; i < count; ++i) {
      const moa_append_item &item = items[i];
      auto copy = [&](const void *from, void *to, int64_t stride) {
        for (int64_t r = 0; r < item.rows; ++r)
          std::memcpy(static_cast<char *>(to) + r * bytes,
                      static_cast<const char *>(from) +
                          r * stride * kernel.bytes(),
                      bytes);
        std::memset(static_cast<char *>(to) + item.rows * bytes, 0,
                    item.zero * bytes);
      };
      copy(item.k, item.page_k, item.k_stride);
      copy(item.v, item.page_v, item.v_stride);
    }
  }
};

struct Quantise {
  Kernel kernel;
  const moa_quantise_item *items;
  int32_t count;

  void rows(const moa_quantise_item &item, bool values) const {
    const int64_t codes = 64 * kernel.dim;
    const int64_t stride = values ? item.v_stride : item.k_stride;
    auto *from =
        static_cast<char *>(const_cast<void *>(values ? item.v : item.k));
    auto at = [&](int64_t i) {
      return from + (i / kernel.dim * stride + i % kernel.dim) * kernel.bytes();
    };
    auto *to =
        static_cast<uint8_t *>(item.page) + (2 * item.half + values) * codes;
    float &scale = item.scales[2 * item.half + values];
    if (item.back) {
      for (int64_t i = 0; i < codes; ++i)
        storeElement(double(scale) * valueOf(to[i], item.format), kernel.dtype,
                     at(i));
      return;
    }
    double most = 0;
    for (int64_t i = 0; i < codes; ++i)
      most = std::max(most, std::fabs(loadElement(at(i), kernel.dtype)));
    scale = float(most / (item.format == MOA_KV_INT8 ? 127 : 448));
    for (int64_t i = 0; i < codes; ++i)
      to[i] =
          codeOf(loadElement(at(i), kernel.dtype) / double(scale), item.format);
  }

  void operator()() const {
    for (int32_t i = 0; i < count; ++i) {
      const moa_quantise_item &item = items[i];
      if (item.kept) {
        const int64_t bytes = 128 * kernel.dim, other = 1 - item.half;
        std::memcpy(static_cast<char *>(item.page) + other * bytes,
                    static_cast<const char *>(item.kept) + other * bytes,
                    bytes);
        std::memcpy(item.scales + 2 * other, item.kept_scales + 2 * other, 8);
      }
      rows(item, false);
      rows(item, true);
    }
  }
};

/// Rotates halves of whole heads, then copies as append does.
struct Rope {
  Kernel kernel;
  moa_gpu_rope_args args;
  const void *items;

  void rotate(char *row, const uint64_t *turns, int64_t position,
              float scale) const {
    const int64_t half = kernel.dim / 2, bytes = kernel.bytes();
    for (int64_t i = 0; i < half; ++i) {
      float c, s;
      moa_rope_angle(turns[i], int32_t(position), &c, &s);
      char *low = row + i * bytes, *high = low + half * bytes;
      const double x = loadElement(low, kernel.dtype),
                   y = loadElement(high, kernel.dtype);
      storeElement(double(scale) * (x * c - y * s), kernel.dtype, low);
      storeElement(double(scale) * (y * c + x * s), kernel.dtype, high);
    }
  }

  void call(const moa_rope_item &item) const {
    const int64_t bytes = kernel.bytes();
    auto *k = static_cast<char *>(const_cast<void *>(item.append.k));
    for (int64_t r = 0; r < item.append.rows; ++r) {
      rotate(k + r * item.append.k_stride * bytes, item.turns,
             item.position + r, item.scale);
      for (int64_t h = 0; h < item.heads; ++h)
        rotate(static_cast<char *>(item.q) +
                   (r * item.q_row_stride + h * item.q_head_stride) * bytes,
               item.turns, item.position + r, item.scale);
    }
    if (item.append.page_k)
      Append{kernel, &item.append, 1}();
    else if (item.append.zero)
      fakeCuda()->fault("rows to zero without a page");
  }

  void step(const moa_gpu_decode_item &item) const {
    auto at = [&](const moa_gpu_rows &rows, int64_t place, int64_t token,
                  int64_t head) {
      return static_cast<char *>(rows.base) +
             kernel.bytes() * (place * rows.unit + token * rows.token_stride +
                               head * rows.head_stride);
    };
    for (int64_t t = 0; t < item.tokens; ++t) {
      const int64_t position = item.length - item.tokens + t;
      const int64_t token = item.token + t, head = item.kv_head;
      rotate(at(args.k, item.k, token, head), args.turns, position, args.scale);
      for (int64_t h = 0; h < args.heads; ++h)
        rotate(at(args.q, item.q, token, head * args.heads + h), args.turns,
               position, args.scale);
    }
  }

  void operator()() const {
    if (!args.line)
      for (int32_t i = 0; i < args.count; ++i)
        call(static_cast<const moa_rope_item *>(items)[i]);
    for (int32_t i = 0; args.line && i < args.line->items; ++i)
      step(static_cast<const moa_gpu_decode_item *>(items)[i]);
  }
};

template <typename T> T take(void **&parameters) {
  return *static_cast<const T *>(*parameters++);
}

Tensor byAddress(const Kernel &kernel, const void *address, int64_t rows,
                 int64_t row, int64_t head) {
  row *= kernel.bytes();
  head *= kernel.bytes();
  if (row % 16 || head % 16)
    fakeCuda()->fault("a stride is not a multiple of 16 bytes");
  return {static_cast<char *>(const_cast<void *>(address)), rows, INT64_MAX,
          row, head};
}

} // namespace

std::function<void()> bindKernel(const Kernel &kernel, unsigned grid,
                                 void **p) {
  if (kernel.kind == "append") {
    Append append = {kernel, take<const moa_append_item *>(p),
                     take<int32_t>(p)};
    if (int64_t(grid) != append.count)
      fakeCuda()->fault("append has one block an item");
    return append;
  }
  if (kernel.kind == "quantise") {
    Quantise quantise = {kernel, take<const moa_quantise_item *>(p),
                         take<int32_t>(p)};
    if (int64_t(grid) != quantise.count)
      fakeCuda()->fault("quantise has one block an item");
    return quantise;
  }
  if (kernel.kind == "rope")
    return Rope{kernel, take<moa_gpu_rope_args>(p), take<const void *>(p)};
  if (kernel.kind == "prepare")
    return Prepare{take<moa_gpu_prepare_args>(p), grid};
  if (kernel.kind == "decode") {
    Decode decode = {};
    decode.kernel = kernel;
    decode.args = take<moa_gpu_decode_args>(p);
    decode.items = take<const moa_gpu_decode_item *>(p);
    decode.line = take<const moa_gpu_line *>(p);
    decode.tables = take<const int32_t *>(p);
    decode.cuts = take<const moa_gpu_cut *>(p);
    decode.partials = take<char *>(p);
    decode.counters = take<int32_t *>(p);
    decode.sink = take<int32_t>(p);
    decode.scaleLog2 = take<float>(p);
    decode.grid = grid;
    return decode;
  }
  Prefill prefill = {};
  prefill.kernel = kernel;
  if (kernel.maps) {
    auto maps = take<moa_gpu_prefill_maps>(p);
    prefill.pool = fromMap(maps.pool);
    for (const moa_gpu_entry_maps &entry : maps.entries)
      if (entry.q.opaque[0]) // Those never used are zero.
        prefill.entries.push_back({fromMap(entry.q), fromMap(entry.k),
                                   fromMap(entry.v), fromMap(entry.out)});
  } else {
    auto list = take<moa_gpu_prefill_entries>(p);
    prefill.pool = poolAt(take<uint64_t>(p), kernel);
    for (const moa_gpu_entry &e : list.entries)
      if (e.q)
        prefill.entries.push_back(
            {byAddress(kernel, e.q, e.tokens, e.q_row_stride, e.q_head_stride),
             byAddress(kernel, e.k, e.tokens, e.k_row_stride, e.k_head_stride),
             byAddress(kernel, e.v, e.tokens, e.v_row_stride, e.v_head_stride),
             byAddress(kernel, e.out, e.tokens, e.out_row_stride,
                       e.out_head_stride)});
  }
  prefill.items = take<const moa_gpu_prefill_item *>(p);
  prefill.tables = take<const int32_t *>(p);
  prefill.starts = take<const int32_t *>(p);
  prefill.count = take<int32_t>(p);
  prefill.sink = take<int32_t>(p);
  prefill.scaleLog2 = take<float>(p);
  return prefill;
}

} // namespace moa::fake
