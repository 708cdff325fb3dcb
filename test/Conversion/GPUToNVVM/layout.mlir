// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse --split-input-file | FileCheck %s --implicit-check-not=moa_gpu.

// Rings and tiles lie one after the other; each stage has a full barrier, where
// one thread arrives, and an empty one, where each reader does.

!q = !moa_gpu.shared<128x64xbf16>
!k = !moa_gpu.shared<64x128xbf16>
!rq = !moa_gpu.ring<1 x !q>
!rk = !moa_gpu.ring<2 x !k>

// CHECK: llvm.mlir.global external @shared() {addr_space = 3 : i32, alignment = 1024 : i64} : !llvm.array<0 x i8>
// CHECK: llvm.mlir.global internal @barriers() {addr_space = 3 : i32, alignment = 8 : i64} : !llvm.array<6 x i64>
// 16 KiB of queries, 2 stages of 16 KiB, 16 KiB of outputs.
// CHECK-LABEL: llvm.func @kernel
// CHECK-SAME: attributes {moa.register_budget = 168 : i64, moa.shared_bytes = 65536 : i64, moa.threads = 384 : i64, moa.tile_keys = 64 : i64, moa.tile_rows = 128 : i64, nvvm.kernel, nvvm.maxnreg = 168 : i32, nvvm.reqntid = array<i32: 384, 1, 1>}
llvm.func @kernel(%map: !llvm.ptr, %n: i32, %f: vector<16xi32>) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 384, registers = 168, rows = 128, keys = 64>, nvvm.kernel} {
  // CHECK-DAG: %[[B:.*]] = llvm.mlir.addressof @barriers
  // CHECK-DAG: %[[SHARED:.*]] = llvm.mlir.addressof @shared
  // CHECK-DAG: %[[OUT:.*]] = llvm.getelementptr %[[SHARED]][49152]
  // CHECK: %[[TID:.*]] = nvvm.read.ptx.sreg.tid.x
  // CHECK-NEXT: %[[ZERO:.*]] = arith.cmpi eq, %[[TID]], %c0_i32
  // CHECK-NEXT: scf.if %[[ZERO]] {
  // CHECK-NEXT: nvvm.mbarrier.init %[[B]], %c1_i32
  // CHECK-NEXT: %[[B1:.*]] = llvm.getelementptr %[[B]][8]
  // CHECK-NEXT: nvvm.mbarrier.init %[[B1]], %c2_i32
  // CHECK-NEXT: %[[B2:.*]] = llvm.getelementptr %[[B]][16]
  // CHECK-NEXT: nvvm.mbarrier.init %[[B2]], %c1_i32
  // CHECK-NEXT: %[[B3:.*]] = llvm.getelementptr %[[B]][24]
  // CHECK-NEXT: nvvm.mbarrier.init %[[B3]], %c1_i32
  // CHECK-NEXT: %[[B4:.*]] = llvm.getelementptr %[[B]][32]
  // CHECK-NEXT: nvvm.mbarrier.init %[[B4]], %c2_i32
  // CHECK-NEXT: %[[B5:.*]] = llvm.getelementptr %[[B]][40]
  // CHECK-NEXT: nvvm.mbarrier.init %[[B5]], %c2_i32
  // CHECK-NEXT: nvvm.fence.mbarrier.init
  // CHECK-NEXT: }
  // CHECK-NEXT: nvvm.barrier0
  %rq = moa_gpu.ring readers = 2 : !rq
  %rk = moa_gpu.ring readers = 2 : !rk
  %out = moa_gpu.shared : !q
  // Warp 0 of warpgroup 0 loads, by one thread; the others count from 0.
  // CHECK: %[[WARP:.*]] = nvvm.shfl.sync {{.*}} %c31_i32
  // CHECK-NEXT: %[[GROUP:.*]] = arith.shrui %[[WARP]], %c2_i32
  // CHECK-NEXT: %[[LOADS:.*]] = arith.cmpi eq, %[[GROUP]], %c0_i32
  // CHECK-NEXT: scf.if %[[LOADS]] {
  // CHECK: %[[FIRST:.*]] = arith.cmpi eq, %[[WARP]], %c0_i32
  // CHECK-NEXT: scf.if %[[FIRST]] {
  // CHECK-NEXT: %[[ONE:.*]] = nvvm.elect.sync
  // CHECK-NEXT: scf.if %[[ONE]] {
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    // CHECK: nvvm.mbarrier.arrive.expect_tx %[[B]], %c16384_i32
    // CHECK-NEXT: nvvm.cp.async.bulk.tensor.shared.cluster.global %[[SHARED]], %{{.*}}, %[[B]], box[%{{.*}}, %{{.*}}, %{{.*}}] {isCTAOnly = true}
    // CHECK-NEXT: %[[Q1:.*]] = llvm.getelementptr %[[SHARED]][8192]
    // CHECK-NEXT: nvvm.cp.async.bulk.tensor.shared.cluster.global %[[Q1]],
    moa_gpu.put %rq[%n] : !rq {
    ^bb0(%t: !q, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !q
      moa_gpu.copy_in %map[%n, %n, %n] to %t[1, 0], %full : !llvm.ptr, !q
    }
    // Keys from 16 KiB on, their second panel 8 KiB behind the first.
    // CHECK: nvvm.mbarrier.arrive.expect_tx %{{.*}}, %c16384_i32
    // CHECK-NEXT: %[[STAGE:.*]] = arith.shli %{{.*}}, %c14_i32
    // CHECK-NEXT: %[[PLACE:.*]] = arith.addi %[[STAGE]], %c16384_i32
    // CHECK-NEXT: %[[K:.*]] = llvm.getelementptr %[[SHARED]][%[[PLACE]]]
    // CHECK-NEXT: nvvm.cp.async.bulk.tensor.shared.cluster.global %[[K]],
    // CHECK-NEXT: %[[K1:.*]] = llvm.getelementptr %[[K]][8192]
    // CHECK-NEXT: nvvm.cp.async.bulk.tensor.shared.cluster.global %[[K1]],
    moa_gpu.put %rk[%n] : !rk {
    ^bb0(%t: !k, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !k
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 1], %full : !llvm.ptr, !k
    }
  // CHECK: } else {
  // CHECK: %[[NUMBER:.*]] = arith.addi %[[GROUP]], %c-1_i32
  // CHECK: nvvm.barrier id = %[[NUMBER]] number_of_threads = %c256_i32
  // CHECK-NEXT: nvvm.barrier.arrive id = %[[NUMBER]] number_of_threads = %c128_i32
  } consumer {
  ^bb0(%group: i32):
    moa_gpu.barrier sync %group, 256
    moa_gpu.barrier arrive %group, 128
    %tq = moa_gpu.get %rq[%n] : !rq -> !q
    %tk = moa_gpu.get %rk[%n] : !rk -> !k
    moa_gpu.release %rq[%n] : !rq
    moa_gpu.release %rk[%n] : !rk
    // CHECK: llvm.getelementptr %[[OUT]][%
    // CHECK: nvvm.stmatrix
    moa_gpu.stage %f, %out[%group] : vector<16xi32>, !q
  }
  llvm.return
}

// -----

// A kernel that shares no memory declares none.
// CHECK-NOT: llvm.mlir.global
// CHECK: llvm.func @plain() attributes {moa.register_budget = 64 : i64, moa.shared_bytes = 0 : i64, moa.threads = 256 : i64
llvm.func @plain() attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 64, rows = 0, keys = 0>} {
  llvm.return
}
