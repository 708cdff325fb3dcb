// Warps without roles: no barriers, no copy engine.
// RUN: moa-opt %s --convert-moa-gpu-to-nvvm | FileCheck %s --implicit-check-not=moa_gpu --implicit-check-not=mbarrier --implicit-check-not=fence

!tile = !moa_gpu.shared<64x64xbf16>

// CHECK-LABEL: llvm.func @alone(
// CHECK-SAME: moa.shared_bytes = 8192 : i64
llvm.func @alone(%a: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 1, keys = 64>} {
  %tile = moa_gpu.shared : !tile
  // A warp's number, which the assembler knows to be its lanes' in common.
  // CHECK: %[[THREAD:.*]] = nvvm.read.ptx.sreg.tid.x
  // CHECK: %[[NUMBER:.*]] = arith.shrui %[[THREAD]], %{{.*}}
  // CHECK: %[[WARP:.*]] = nvvm.shfl.sync idx %{{.*}}, %[[NUMBER]],
  %warp = moa_gpu.warp
  // CHECK: arith.shli %[[WARP]],
  // CHECK: llvm.store %{{.*}} {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<3>
  moa_gpu.store_piece %a, %tile[%warp, %n] : !tile
  // CHECK: nvvm.bar.warp.sync
  moa_gpu.seal
  llvm.return
}
