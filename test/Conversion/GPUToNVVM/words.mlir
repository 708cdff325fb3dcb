// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse | FileCheck %s --implicit-check-not=moa_gpu.

// Words lie behind all tiles. The writer stores them between the wait for a free
// stage and its arrival, which makes them visible; a reader loads them behind its
// wait, and a reader of the tile alone does not.

!tile = !moa_gpu.shared<64x64xf16>
!ring = !moa_gpu.ring<2 x !tile, words = 8>
!plain = !moa_gpu.ring<1 x !tile>

// 3 tiles of 8192 bytes, then 2 stages of 8 words.
// CHECK-LABEL: llvm.func @words
// CHECK-SAME: %[[N:[a-z0-9]+]]: i32, %[[OUT:[a-z0-9]+]]: !llvm.ptr) attributes {{{.*}}moa.shared_bytes = 24640 : i64
llvm.func @words(%map: !llvm.ptr, %n: i32, %out: !llvm.ptr) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 0, keys = 0>} {
  %r = moa_gpu.ring readers = 1 : !ring
  %p = moa_gpu.ring readers = 1 : !plain
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    // CHECK: try_wait
    // CHECK: %[[STEP:.*]] = arith.shli %{{.*}}, %c5_i32
    // CHECK-NEXT: %[[PLACE:.*]] = arith.addi %[[STEP]], %c24576_i32
    // CHECK-NEXT: %[[WORDS:.*]] = llvm.getelementptr %{{.*}}[%[[PLACE]]]
    // CHECK-NEXT: llvm.store %{{.*}}, %[[WORDS]] {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<3>
    // CHECK: %[[MORE:.*]] = llvm.getelementptr %[[WORDS]][16]
    // CHECK-NEXT: llvm.store %{{.*}}, %[[MORE]] {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<3>
    // CHECK-NEXT: nvvm.mbarrier.arrive.expect_tx %{{.*}}, %c8192_i32
    moa_gpu.put %r[%n] words(%n, %n, %n, %n, %n, %n, %n, %n) : !ring {
    ^bb0(%t: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !tile
    }
    moa_gpu.put %p[%n] : !plain {
    ^bb0(%t: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !tile
    }
  // CHECK: } else {
  } consumer {
  ^bb0(%group: i32):
    // CHECK: try_wait
    // CHECK-NOT: llvm.load
    // CHECK: try_wait
    %alone = moa_gpu.get %p[%n] : !plain -> !tile
    // CHECK: %[[FIRST:.*]] = llvm.load %[[FROM:.*]] {alignment = 16 : i64} : !llvm.ptr<3> -> vector<4xi32>
    // CHECK: %[[SECOND:.*]] = llvm.getelementptr %[[FROM]][16]
    // CHECK: %[[QUAD:.*]] = llvm.load %[[SECOND]] {alignment = 16 : i64} : !llvm.ptr<3> -> vector<4xi32>
    // CHECK: %[[W:.*]]:4 = vector.to_elements %[[QUAD]]
    %t, %words:8 = moa_gpu.get %r[%n] : !ring -> !tile, i32, i32, i32, i32, i32, i32, i32, i32
    // CHECK: llvm.store %{{.*}}#0, %[[OUT]]
    // CHECK: llvm.store %[[W]]#3, %[[OUT]]
    llvm.store %words#0, %out : i32, !llvm.ptr
    llvm.store %words#7, %out : i32, !llvm.ptr
    moa_gpu.barrier sync %n, 128
    moa_gpu.release %r[%n] : !ring
    moa_gpu.release %p[%n] : !plain
  }
  llvm.return
}
