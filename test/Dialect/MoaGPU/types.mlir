// RUN: moa-opt %s | moa-opt | FileCheck %s

// CHECK-LABEL: func.func private @shared(!moa_gpu.shared<64x64xf16>, !moa_gpu.shared<128x256xbf16>, !moa_gpu.shared<16x96xf32>)
func.func private @shared(!moa_gpu.shared<64x64xf16>, !moa_gpu.shared<128x256xbf16>, !moa_gpu.shared<16x96xf32>)

// CHECK-LABEL: func.func private @rings
// CHECK-SAME: (!moa_gpu.ring<1 x !moa_gpu.shared<64x64xf16>>, !moa_gpu.ring<8 x !moa_gpu.shared<64x192xbf16>>)
func.func private @rings(!moa_gpu.ring<1 x !moa_gpu.shared<64x64xf16>>,
                         !moa_gpu.ring<8 x !moa_gpu.shared<64x192xbf16>>)

// CHECK-LABEL: func.func private @others(!moa_gpu.async<vector<64xf32>>, !moa_gpu.barrier)
func.func private @others(!moa_gpu.async<vector<64xf32>>, !moa_gpu.barrier)

// CHECK-LABEL: func.func private @attributes
// CHECK-SAME: a = #moa_gpu.launch<threads = 32, registers = 24, rows = 0, keys = 0>
// CHECK-SAME: b = #moa_gpu.launch<threads = 1024, registers = 255, rows = 128, keys = 64>
// CHECK-SAME: c = [#moa_gpu<reduction max>, #moa_gpu<reduction add>, #moa_gpu<barrier_action sync>, #moa_gpu<barrier_action arrive>]
func.func private @attributes() attributes {
  a = #moa_gpu.launch<threads = 32, registers = 24, rows = 0, keys = 0>,
  b = #moa_gpu.launch<threads = 1024, registers = 255, rows = 128, keys = 64>,
  c = [#moa_gpu<reduction max>, #moa_gpu<reduction add>, #moa_gpu<barrier_action sync>, #moa_gpu<barrier_action arrive>]
}

// CHECK-LABEL: llvm.func @launch
// CHECK-SAME: moa_gpu.launch = #moa_gpu.launch<threads = 384, registers = 168, rows = 128, keys = 128>
llvm.func @launch() attributes {moa_gpu.launch = #moa_gpu.launch<threads = 384, registers = 168, rows = 128, keys = 128>} {
  llvm.return
}
