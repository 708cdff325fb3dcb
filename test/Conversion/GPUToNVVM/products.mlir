// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse --split-input-file | FileCheck %s --implicit-check-not=moa_gpu.

// Descriptors: the swizzle of 128 bytes (bit 62), 1024 bytes between groups of 8
// rows (64 << 32), the leading step (<< 16) in units of 16 bytes; the address
// comes from the tile and from the row of the warpgroup, 128 bytes each.

!q = !moa_gpu.shared<128x128xbf16>
!k = !moa_gpu.shared<64x128xbf16>

// CHECK-LABEL: llvm.func @products
// CHECK-DAG: %[[KMAJOR:.*]] = arith.constant 4611686293305360384 : i64
// CHECK-DAG: %[[NMAJOR:.*]] = arith.constant 4611686293338849280 : i64
// CHECK-DAG: %[[SHARED:.*]] = llvm.mlir.addressof @shared
// CHECK-DAG: %[[C7:.*]] = arith.constant 7 : i32
// CHECK-DAG: %[[REACH:.*]] = arith.constant 262143 : i32
llvm.func @products(%row: i32, %p: vector<8xi32>, %o: vector<64xf32>) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 255, rows = 0, keys = 0>} {
  %q = moa_gpu.shared : !q
  %k = moa_gpu.shared : !k
  // CHECK-DAG: %[[KEYS:.*]] = llvm.getelementptr %[[SHARED]][32768]
  // CHECK-DAG: %[[START:.*]] = llvm.ptrtoint %[[SHARED]] : !llvm.ptr<3> to i32
  // CHECK-DAG: %[[BYTES:.*]] = arith.shli %{{.*}}, %[[C7]]
  // CHECK: %[[A:.*]] = arith.addi %[[START]], %[[BYTES]]
  // CHECK: %[[AR:.*]] = arith.andi %[[A]], %[[REACH]]
  // CHECK: arith.shrui %[[AR]], %c4_i32
  // CHECK: arith.extui
  // CHECK: arith.ori %{{.*}}, %[[KMAJOR]]
  // CHECK: llvm.ptrtoint %[[KEYS]] : !llvm.ptr<3> to i32
  // CHECK: arith.ori %{{.*}}, %[[KMAJOR]]
  // The fifth step is in the second panel: 128 rows of 128 bytes behind the first
  // for queries (1024 units of 16), 64 rows for keys (512).
  // CHECK: add.s64 da, $16, 0; add.s64 db, $17, 0; {{.*}}m64n32k16.f32.bf16.bf16{{.*}} da, db, 0, 1, 1, 0, 0; add.s64 da, $16, 2; add.s64 db, $17, 2; {{.*}} add.s64 da, $16, 6; add.s64 db, $17, 6; {{.*}} add.s64 da, $16, 1024; add.s64 db, $17, 512; {{.*}} da, db, 1, 1, 1, 0, 0; wgmma.commit_group.sync.aligned; }"
  %s = moa_gpu.scores %q[%row], %k keys 32 depth 80 : !q, !k -> !moa_gpu.async<vector<16xf32>>
  // Values: rows along the depth; 16 of them, 2048 bytes, a step.
  // CHECK: arith.ori %{{.*}}, %[[NMAJOR]]
  // CHECK: add.s64 db, $136, 0; {{.*}}m64n128k16.f32.bf16.bf16 {{.*}} {$128, $129, $130, $131}, db, 1, 1, 1, 1; add.s64 db, $136, 128; {{.*}} {$132, $133, $134, $135}, db, 1, 1, 1, 1; wgmma.commit_group
  %a = moa_gpu.accumulate %p, %k, %o : vector<8xi32>, !k, vector<64xf32>
  // CHECK: wgmma.wait_group.sync.aligned 1;
  %x = moa_gpu.wait %s pending 1 : !moa_gpu.async<vector<16xf32>>
  // CHECK: wgmma.wait_group.sync.aligned 0;
  %y = moa_gpu.wait %a pending 0 : !moa_gpu.async<vector<64xf32>>
  llvm.return
}

// -----

// Of a tile in a ring, the stage comes last: 16384 bytes, 1024 units of 16, on
// what is the same for both stages.

!t = !moa_gpu.shared<64x128xbf16>
!r = !moa_gpu.ring<2 x !t>

// CHECK-LABEL: llvm.func @stages
// CHECK-SAME: (%[[USE:[a-z0-9]+]]: i32
// CHECK-DAG: %[[KMAJOR:.*]] = arith.constant 4611686293305360384 : i64
// CHECK-DAG: %[[C10:.*]] = arith.constant 10 : i32
// CHECK-DAG: %[[C1:.*]] = arith.constant 1 : i32
llvm.func @stages(%use: i32, %map: !llvm.ptr) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 0, keys = 0>} {
  %q = moa_gpu.shared : !t
  %ring = moa_gpu.ring readers = 1 : !r
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    moa_gpu.put %ring[%use] : !r {
    ^bb0(%tile: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%use, %use, %use] to %tile[0, 0], %full : !llvm.ptr, !t
      moa_gpu.copy_in %map[%use, %use, %use] to %tile[0, 1], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    // CHECK: nvvm.setmaxregister increase
    // CHECK: %[[STAGE:.*]] = arith.andi %[[USE]], %[[C1]]
    // CHECK: mbarrier.try_wait
    %k = moa_gpu.get %ring[%use] : !r -> !t
    // CHECK: %[[FIRST:.*]] = llvm.getelementptr %{{.*}}[16384]
    // CHECK: %[[START:.*]] = llvm.ptrtoint %[[FIRST]]
    // CHECK: %[[REACHED:.*]] = arith.andi %[[START]],
    // CHECK: %[[LOW:.*]] = arith.shrui %[[REACHED]],
    // CHECK: %[[WIDE:.*]] = arith.extui %[[LOW]]
    // CHECK: %[[SAME:.*]] = arith.ori %[[WIDE]], %[[KMAJOR]]
    // CHECK: %[[UNITS:.*]] = arith.shli %[[STAGE]], %[[C10]]
    // CHECK: %[[DISTANCE:.*]] = arith.extui %[[UNITS]]
    // CHECK: %[[TILE:.*]] = arith.addi %[[SAME]], %[[DISTANCE]] : i64
    // CHECK: llvm.inline_asm {{.*}} %{{[0-9]+}}, %[[TILE]] :
    %c0 = arith.constant 0 : i32
    %s = moa_gpu.scores %q[%c0], %k keys 64 depth 128 : !t, !t -> !moa_gpu.async<vector<32xf32>>
    %x = moa_gpu.wait %s pending 0 : !moa_gpu.async<vector<32xf32>>
    moa_gpu.release %ring[%use] : !r
  }
  llvm.return
}
