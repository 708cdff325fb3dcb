// Tiles fetched by all threads: swizzled places, rows outside as zeros, groups.
// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse | FileCheck %s --implicit-check-not=moa_gpu

!query = !moa_gpu.shared<64x64xbf16>
!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !query>
!four = !moa_gpu.buffers<4 x !tile>

// One tile of 8 KiB, then four of 16.
// CHECK-LABEL: llvm.func @fetches(
// CHECK-SAME: %[[P:.*]]: !llvm.ptr<1>, %[[STRIDE:.*]]: i64, %[[FIRST:.*]]: i32, %[[END:.*]]: i32, %[[C:.*]]: i1, %{{.*}}: i32)
// CHECK-SAME: moa.shared_bytes = 73728 : i64
llvm.func @fetches(%p: !llvm.ptr<1>, %stride: i64, %first: i32, %end: i32, %c: i1, %use: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 128, rows = 64, keys = 64>} {
  %q = moa_gpu.buffers : !one
  %b = moa_gpu.buffers : !four
  // 256 threads take 32 rows at a time: two passes. Columns 64 to 79 are two
  // chunks of the second panel, 8 KiB on.
  // CHECK: scf.if %[[C]] {
  // CHECK-DAG: %[[TID:.*]] = nvvm.read.ptx.sreg.tid.x
  // CHECK-DAG: %[[ROW:.*]] = arith.shrui %[[TID]], %c3_i32
  // CHECK-DAG: %[[CHUNK:.*]] = arith.andi %[[TID]], %c7_i32
  // CHECK-DAG: %[[LOW:.*]] = arith.andi %[[ROW]], %c7_i32
  // CHECK-DAG: %[[PLACE:.*]] = arith.xori %[[CHUNK]], %[[LOW]]
  // CHECK-DAG: %[[SLOT:.*]] = arith.andi %{{.*}}, %c3_i32
  // CHECK-DAG: arith.addi %{{.*}}, %c8192_i32
  // CHECK: %[[MY:.*]] = arith.addi %[[FIRST]], %[[ROW]]
  // CHECK: %[[IN0:.*]] = arith.cmpi ult, %[[MY]], %[[END]]
  // CHECK: %[[SIZE0:.*]] = arith.select %[[IN0]], %c16_i32, %c0_i32
  // CHECK: %[[NEXT:.*]] = arith.addi %[[MY]], %c32_i32
  // CHECK: %[[IN1:.*]] = arith.cmpi ult, %[[NEXT]], %[[END]]
  // CHECK: %[[SIZE1:.*]] = arith.select %[[IN1]], %c16_i32, %c0_i32
  // CHECK: nvvm.cp.async.shared.global %{{.*}}, %{{.*}}, 16, cache = cg, %[[SIZE0]]
  // CHECK: nvvm.cp.async.shared.global %{{.*}}, %{{.*}}, 16, cache = cg, %[[SIZE1]]
  // CHECK: arith.cmpi slt, %[[CHUNK]], %c2_i32
  // CHECK: scf.if
  // CHECK: llvm.getelementptr %{{.*}}[8192]
  // CHECK: nvvm.cp.async.shared.global {{.*}} %[[SIZE0]]
  // CHECK: llvm.getelementptr %{{.*}}[12288]
  // CHECK: nvvm.cp.async.shared.global {{.*}} %[[SIZE1]]
  // CHECK: }
  // CHECK: }
  // A fetch of nothing is a group too.
  // CHECK-NEXT: nvvm.cp.async.commit.group
  moa_gpu.fetch %p stride %stride rows %first to %end columns 80 into %b[%use] if %c : !four
  // CHECK: scf.if
  // CHECK-COUNT-2: nvvm.cp.async.shared.global
  // CHECK-NOT: nvvm.cp.async.shared.global
  // CHECK: nvvm.cp.async.commit.group
  moa_gpu.fetch %p stride %stride rows %first to %end columns 64 into %q[%use] if %c : !one
  // CHECK: nvvm.cp.async.wait.group 1
  // CHECK-NEXT: nvvm.barrier0
  %t = moa_gpu.await %b[%use] pending 1 : !four -> !tile
  moa_gpu.fetch %p stride %stride rows %first to %end columns 80 into %b[%use] if %c : !four
  llvm.return
}
