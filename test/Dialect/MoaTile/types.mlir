// RUN: moa-opt %s | moa-opt | FileCheck %s

// CHECK-LABEL: func.func private @items(!moa_tile.item<prefill>, !moa_tile.item<decode>, !moa_tile.item<append>)
func.func private @items(!moa_tile.item<prefill>, !moa_tile.item<decode>,
                         !moa_tile.item<append>)

// CHECK-LABEL: func.func private @tiles(!moa_tile.tile<64x128xf32>, !moa_tile.tile<1x1xf16>, !moa_tile.tile<7x256xbf16>)
func.func private @tiles(!moa_tile.tile<64x128xf32>, !moa_tile.tile<1x1xf16>,
                         !moa_tile.tile<7x256xbf16>)

// CHECK-LABEL: func.func private @states(!moa_tile.state<64x80>, !moa_tile.state<1x64>)
func.func private @states(!moa_tile.state<64x80>, !moa_tile.state<1x64>)

// CHECK-LABEL: func.func private @configs
// CHECK-SAME: a = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
// CHECK-SAME: b = #moa_tile.config<lanes = dims, rows = 1, keys = 64>
func.func private @configs() attributes {
  a = #moa_tile.config<lanes = rows, rows = 64, keys = 64>,
  b = #moa_tile.config<lanes = dims, rows = 1, keys = 64>
}
