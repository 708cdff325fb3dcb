//===- AllocatorTest.cpp - Host memory from the caller --------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Contexts with a moa_allocator: what it gives is used whatever it contains and
// comes back; one that refuses or gives what was not asked for is a status, and
// nothing has changed.
//
//===----------------------------------------------------------------------===//

#include "Reference.h"

#include "api_support.h"

#include "gtest/gtest.h"

#include <cstdlib>
#include <set>

using namespace moa::rt;
using namespace moa::rt::test;

namespace {

/// An allocator that counts, fills with NaN, and refuses on demand.
struct Counting {
  moa_allocator make() {
    return {sizeof(moa_allocator), allocate, deallocate, this};
  }
  static void *allocate(void *user, size_t bytes, size_t alignment) {
    auto &self = *static_cast<Counting *>(user);
    EXPECT_GE(bytes, 1u);
    EXPECT_EQ(alignment & (alignment - 1), 0u);
    if (self.left-- == 0)
      return nullptr;
    const size_t whole = (bytes + alignment - 1) / alignment * alignment;
    auto *memory =
        static_cast<char *>(std::aligned_alloc(alignment, whole + alignment));
    std::memset(memory, 0xff, whole + alignment);
    memory += self.skew;
    self.given.insert(memory);
    self.bytes += bytes;
    return memory;
  }
  static void deallocate(void *user, void *memory) {
    auto &self = *static_cast<Counting *>(user);
    EXPECT_EQ(self.given.erase(memory), 1u) << "not given, or twice taken back";
    std::free(static_cast<char *>(memory) - self.skew);
  }

  std::set<void *> given;
  uint64_t bytes = 0;
  int64_t left = -1; ///< Successful calls before one that refuses.
  size_t skew = 0;   ///< Distance of what it gives from the alignment.
};

moa_status *createContext(const moa_allocator *allocator, moa_context **out,
                          int32_t device = MOA_DEVICE_CPU) {
  moa_context_options options = {};
  options.struct_size = sizeof(options);
  options.threads = 1;
  options.device = device;
  options.allocator = allocator;
  return moa_context_create(&options, out);
}

/// A dense model of one layer, in a context of its own.
struct Model {
  explicit Model(const moa_allocator *allocator) {
    EXPECT_EQ(createContext(allocator, &context), nullptr);
    std::mt19937 random(1);
    handle.context = context;
    Shape shape;
    shape.kvHeads = kHeads;
    shape.group = 1;
    fill(*handle.module, shape, random);
    for (moa_span_rule &rule : handle.module->rules)
      rule.alpha = 0, rule.beta = 1;
    tokens.add(handle.module->geometry, kTokens, random);
    EXPECT_EQ(moa_cache_create(&handle, nullptr, &cache), nullptr);
    EXPECT_EQ(moa_sequence_create(cache, kTokens, &sequence), nullptr);
  }
  ~Model() {
    moa_cache_destroy(cache);
    moa_context_destroy(context);
  }
  moa_status *attend(int64_t begin, int64_t end) {
    const moa_attend_entry entry =
        tokens.entry(handle.module->geometry, *unwrap(sequence), begin, end);
    moa_attend_options options = {};
    options.struct_size = sizeof(options);
    options.entry_size = sizeof(entry);
    return moa_attend(cache, &options, &entry, 1);
  }
  uint64_t used() const { return cache->cache->pool.used(); }

  /// Half of the tokens fit in the pages of a slab: 2 MiB of 4 KiB each.
  static constexpr int64_t kHeads = 16, kTokens = 3000, kHalf = 1500;
  moa_context *context = nullptr;
  moa_module handle = {nullptr, std::make_unique<Module>()};
  moa_cache *cache = nullptr;
  moa_sequence *sequence = nullptr;
  Tokens tokens;
};

void expectRefused(moa_status *status, moa_status_code code, const char *text) {
  ASSERT_NE(status, nullptr) << text;
  EXPECT_EQ(moa_status_get_code(status), code);
  EXPECT_NE(std::string(moa_status_get_message(status)).find(text),
            std::string::npos)
      << moa_status_get_message(status);
  moa_status_free(status);
}

TEST(Allocator, PagesAndDeviceMemoryAreItsOwn) {
  Counting counting;
  const moa_allocator allocator = counting.make();
  {
    Model own(&allocator), systems(nullptr);
    EXPECT_TRUE(counting.given.empty()) << "taken before a page is needed";
    for (Model *model : {&own, &systems}) {
      ASSERT_EQ(model->attend(0, 70), nullptr);
      for (int64_t row = 70; row < 140; ++row)
        ASSERT_EQ(model->attend(row, row + 1), nullptr);
    }
    EXPECT_EQ(counting.given.size(), 1u); // A slab.
    EXPECT_EQ(std::memcmp(own.tokens.out.data(), systems.tokens.out.data(),
                          140 * Model::kHeads * kDim * sizeof(float)),
              0);
    moa_cache_stats stats = {};
    stats.struct_size = sizeof(stats);
    ASSERT_EQ(moa_cache_get_stats(own.cache, &stats), nullptr);
    EXPECT_EQ(stats.reserved_bytes, counting.bytes);

    void *memory = nullptr;
    ASSERT_EQ(moa_device_alloc(own.context, 100, &memory), nullptr);
    EXPECT_EQ(counting.given.count(memory), 1u);
    ASSERT_EQ(moa_device_free(own.context, memory), nullptr);
    EXPECT_EQ(counting.given.size(), 1u);
  }
  EXPECT_TRUE(counting.given.empty()) << "not taken back";
}

TEST(Allocator, OneThatRefusesChangesNothing) {
  Counting counting;
  const moa_allocator allocator = counting.make();
  {
    Model model(&allocator);
    for (int64_t begin : {int64_t(0), Model::kHalf}) {
      const uint64_t before = model.used();
      counting.left = 0;
      expectRefused(model.attend(begin, begin + Model::kHalf),
                    MOA_OUT_OF_MEMORY,
                    "the context's allocator gave no 2097152 bytes; free");
      EXPECT_EQ(model.used(), before);
      EXPECT_EQ(unwrap(model.sequence)->layers[0].seen, begin);
      counting.left = -1;
      ASSERT_EQ(model.attend(begin, begin + 64), nullptr);
      if (begin == 0)
        ASSERT_EQ(model.attend(64, Model::kHalf), nullptr);
    }
    void *memory = nullptr;
    counting.left = 0;
    expectRefused(moa_device_alloc(model.context, 100, &memory),
                  MOA_OUT_OF_MEMORY, "gave no 100 bytes");
    EXPECT_EQ(memory, nullptr);
  }
  EXPECT_TRUE(counting.given.empty());
}

TEST(Allocator, MemoryThatIsNotAlignedIsRefusedAndGivenBack) {
  Counting counting;
  counting.skew = 16;
  const moa_allocator allocator = counting.make();
  {
    Model model(&allocator);
    expectRefused(model.attend(0, 1), MOA_INVALID_ARGUMENT,
                  "does not lie at a multiple of 64 bytes");
    EXPECT_TRUE(counting.given.empty());
    EXPECT_EQ(model.used(), 0u);
  }
}

TEST(Allocator, Refusals) {
  Counting counting;
  moa_context *made = nullptr;
  moa_allocator allocator = counting.make();
  expectRefused(createContext(&allocator, &made, MOA_DEVICE_CUDA),
                MOA_UNSUPPORTED, "an allocator is for the CPU");
  allocator.struct_size = 0;
  expectRefused(createContext(&allocator, &made), MOA_INVALID_ARGUMENT,
                "moa_allocator.struct_size is 0");
  allocator = counting.make();
  allocator.allocate = nullptr;
  expectRefused(createContext(&allocator, &made), MOA_INVALID_ARGUMENT,
                "moa_allocator.allocate is NULL");
  allocator = counting.make();
  allocator.deallocate = nullptr;
  expectRefused(createContext(&allocator, &made), MOA_INVALID_ARGUMENT,
                "moa_allocator.deallocate is NULL");
  EXPECT_EQ(made, nullptr);
}

/// A caller of an older header passes a struct that ends before the allocator.
TEST(Allocator, OlderCallersHaveNone) {
  moa_context_options options = {};
  options.struct_size = offsetof(moa_context_options, allocator);
  const moa_allocator none = {};
  options.allocator = &none;
  options.threads = 1;
  moa_context *context = nullptr;
  ASSERT_EQ(moa_context_create(&options, &context), nullptr);
  moa_context_destroy(context);
}

} // namespace
