//===- rope_table.h - Rotations of a cache ----------------------*- C++ -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Owns the tables that rope kernels read, in the device's memory, and says
// which layer has which.
//
//===----------------------------------------------------------------------===//

#ifndef MOA_RT_CACHE_ROPE_TABLE_H
#define MOA_RT_CACHE_ROPE_TABLE_H

#include "backend/device.h"
#include "moa/runtime.h"
#include "sched/rope.h"

#include <memory>
#include <vector>

namespace moa::rt {

class RopeTable {
public:
  /// Gives layer `layer`, or every layer for MOA_ALL_LAYERS, the rotation; a
  /// failure changes nothing.
  Status set(Device &device, const Module &module, uint32_t layer,
             const moa_rope &rope);
  /// The rotation of a layer that the module has.
  const Rope &of(uint32_t layer) const {
    static const Rope none;
    return layer < layers.size() ? layers[layer].rope : none;
  }
  /// What tells it from others in a snapshot (moa_snapshot_layer.rope).
  uint64_t hashOf(uint32_t layer) const {
    return layer < layers.size() ? layers[layer].hash : 0;
  }

private:
  /// Device memory with what it takes to free it.
  struct Memory {
    explicit Memory(Device &device) : device(device) {}
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;
    ~Memory() {
      if (address)
        device.free(address);
    }
    Device &device;
    void *address = nullptr;
  };
  struct Layer {
    Rope rope;
    uint64_t hash = 0;
    std::shared_ptr<const Memory> table; ///< Layers set at once share it.
  };
  std::vector<Layer> layers; ///< Empty until a rotation is set.
};

} // namespace moa::rt

#endif // MOA_RT_CACHE_ROPE_TABLE_H
