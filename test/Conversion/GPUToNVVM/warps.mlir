// Warps with roles, and what a warp computes alone.
// RUN: moa-opt %s --split-input-file --convert-moa-gpu-to-nvvm | FileCheck %s --implicit-check-not=moa_gpu

!tile = !moa_gpu.shared<128x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>

// The ring of two stages of 16 KiB, then scratch: 32768 + 48 bytes. A full
// barrier has one arrival, an empty one those of two warps.
// CHECK-LABEL: llvm.func @roles(
// CHECK-SAME: moa.register_budget = 128 : i64, moa.shared_bytes = 32816 : i64, moa.threads = 96 : i64
// CHECK-SAME: nvvm.maxnreg = 128 : i32
// CHECK-SAME: nvvm.reqntid = array<i32: 96, 1, 1>
llvm.func @roles(%map: !llvm.ptr, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  %ring = moa_gpu.ring readers = 2 : !ring
  // CHECK: %[[SHARED:.*]] = llvm.mlir.addressof @shared
  // CHECK: %[[SCRATCH:.*]] = llvm.getelementptr %[[SHARED]][32768]
  // CHECK: llvm.store %{{.*}}, %[[SCRATCH]]
  %scratch = moa_gpu.scratch 48 : <3>
  %zero = arith.constant 0 : i32
  llvm.store %zero, %scratch : i32, !llvm.ptr<3>
  // CHECK-COUNT-4: nvvm.mbarrier.init
  // CHECK: nvvm.fence.mbarrier.init
  // CHECK: nvvm.barrier0
  // CHECK: %[[WARP:.*]] = nvvm.shfl.sync idx
  // CHECK: %[[TWO:.*]] = arith.constant 2 : i32
  // CHECK: %[[LAST:.*]] = arith.cmpi eq, %[[WARP]], %[[TWO]]
  // CHECK: scf.if %[[LAST]] {
  moa_gpu.warp_roles consumers = 2 producer {
    // All lanes wait, one fills.
    // CHECK: mbarrier.try_wait
    // CHECK: scf.if
    // CHECK: nvvm.mbarrier.arrive.expect_tx
    // CHECK: nvvm.cp.async.bulk.tensor.shared.cluster.global
    // CHECK-NOT: l2_cache_hint
    // CHECK: arith.constant 1364590687093260288 : i64
    // CHECK: nvvm.cp.async.bulk.tensor.shared.cluster.global {{.*}}l2_cache_hint
    moa_gpu.put %ring[%n] : !ring {
    ^bb0(%tile: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%zero, %zero, %n] to %tile[0, 0], %full : !llvm.ptr, !tile
      moa_gpu.copy_in %map[%zero, %zero, %n] to %tile[1, 0], %full read_once : !llvm.ptr, !tile
    }
    // CHECK: } else {
  } consumer {
  ^bb0(%warp: i32):
    // CHECK: mbarrier.try_wait
    %tile = moa_gpu.get %ring[%n] : !ring -> !tile
    // CHECK: nvvm.ldmatrix %{{.*}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<row>, num = 4
    %a = moa_gpu.load_matrix %tile[%warp, 48] : !tile
    // CHECK: nvvm.ldmatrix %{{.*}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<col>, num = 4
    %b = moa_gpu.load_matrix %tile[%warp, 0] transposed : !tile
    // 16 bytes go where the swizzle has them: chunk column / 8 of the panel's
    // eight, exchanged by the row; panels of 128 rows are 16384 bytes.
    // CHECK: %[[COLUMN:.*]] = arith.shrui %arg1, %{{.*}} : i32
    // CHECK: %[[CHUNK:.*]] = arith.andi %[[COLUMN]], %{{.*}} : i32
    // CHECK: %[[LOW:.*]] = arith.andi %[[WARP]], %{{.*}} : i32
    // CHECK: %[[SWIZZLED:.*]] = arith.xori %[[CHUNK]], %[[LOW]] : i32
    // CHECK: %[[SIX:.*]] = arith.constant 6 : i32
    // CHECK: %[[PANEL:.*]] = arith.shrui %arg1, %[[SIX]] : i32
    // CHECK: %[[PANEL_BITS:.*]] = arith.constant 14 : i32
    // CHECK: %[[PANEL_BYTES:.*]] = arith.shli %[[PANEL]], %[[PANEL_BITS]] : i32
    // CHECK: %[[ROW_BITS:.*]] = arith.constant 7 : i32
    // CHECK: %[[ROW_BYTES:.*]] = arith.shli %[[WARP]], %[[ROW_BITS]] : i32
    // CHECK: %[[START:.*]] = arith.addi %[[PANEL_BYTES]], %[[ROW_BYTES]] : i32
    // CHECK: %[[CHUNK_BITS:.*]] = arith.constant 4 : i32
    // CHECK: %[[CHUNK_BYTES:.*]] = arith.shli %[[SWIZZLED]], %[[CHUNK_BITS]] : i32
    // CHECK: %[[PLACE:.*]] = arith.addi %[[START]], %[[CHUNK_BYTES]] : i32
    // CHECK: %[[TARGET:.*]] = llvm.getelementptr %{{.*}}[%[[PLACE]]]
    // CHECK: llvm.store %{{.*}}, %[[TARGET]] {alignment = 16 : i64} : vector<4xi32>, !llvm.ptr<3>
    moa_gpu.store_piece %a, %tile[%warp, %n] : !tile
    // CHECK: nvvm.bar.warp.sync
    // CHECK-NEXT: nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>, space = #nvvm.shared_space<cta>}
    moa_gpu.seal
    // The lanes have read before the first of them says so.
    // CHECK: nvvm.bar.warp.sync
    // CHECK: scf.if
    // CHECK: mbarrier.arrive.shared::cta.b64
    moa_gpu.release %ring[%n] : !ring
  }
  llvm.return
}

// -----

// CHECK-LABEL: llvm.func @fragments(
// CHECK-SAME: moa.shared_bytes = 0 : i64
// CHECK-NOT: llvm.mlir.global
llvm.func @fragments(%a: vector<4xi32>, %b: vector<2xi32>, %s: vector<4xf32>,
                     %x: i32, %scale: f32, %c: i1, %counter: !llvm.ptr<1>,
                     %out: !llvm.ptr<1>) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 32, registers = 128, rows = 0, keys = 0>} {
  // CHECK: %[[LANES:.*]] = nvvm.vote.sync ballot
  // CHECK: llvm.intr.ctpop(%[[LANES]])
  %n = moa_gpu.lane_count %c
  // f16 operands are pairs to the instruction, bf16 ones words.
  // CHECK-COUNT-6: llvm.bitcast {{.*}} : i32 to vector<2xf16>
  // CHECK: nvvm.mma.sync {{.*}} {layoutA = #nvvm.mma_layout<row>, layoutB = #nvvm.mma_layout<col>, shape = #nvvm.shape<m = 16, n = 8, k = 16>} : (vector<2xf16>, vector<2xf16>, f32)
  %p = moa_gpu.multiply %a, %b, %s as f16
  // CHECK: nvvm.mma.sync {{.*}}multiplicandAPtxType = #nvvm.mma_type<bf16>{{.*}} : (i32, i32, f32)
  %q = moa_gpu.multiply %a, %b, %p as bf16
  // Rows 0 and 8 of lane / 4: two columns each.
  // CHECK: %[[NONE:.*]] = arith.constant 0xFF800000 : f32
  // CHECK: %[[FIRST:.*]] = arith.addi
  // CHECK-COUNT-2: arith.cmpi slt, %[[FIRST]]
  // CHECK: %[[EIGHT:.*]] = arith.constant 8 : i32
  // CHECK: %[[SECOND:.*]] = arith.addi %[[FIRST]], %[[EIGHT]]
  // CHECK: arith.cmpi slt, %[[SECOND]]
  %m = moa_gpu.mask_columns %q, key %x starts %x, %n ends %n, %x sink %x
  // CHECK: vector.to_elements
  // CHECK-COUNT-2: arith.maxnumf
  %h = moa_gpu.row_reduce max %m by_column : vector<4xf32>
  // Lanes 4, 8 and 16 apart share columns.
  // CHECK: arith.constant 4 : i32
  // CHECK: nvvm.shfl.sync bfly
  // CHECK: arith.constant 8 : i32
  // CHECK: nvvm.shfl.sync bfly
  // CHECK: arith.constant 16 : i32
  // CHECK: nvvm.shfl.sync bfly
  %l = moa_gpu.lane_reduce max %h by_column
  // CHECK-COUNT-2: llvm.inline_asm has_side_effects asm_dialect = att "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", "=r,r" %{{.*}} : (i32) -> i32
  %t = moa_gpu.transpose %b : vector<2xi32>
  // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "atom.acq_rel.gpu.global.add.u32 $0, [$1], 1;", "=r,l,~{memory}" %{{.*}} : (i64) -> i32
  %found = moa_gpu.count_arrival %counter : <1>
  // Memory is clobbered: nothing moves across.
  // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "griddepcontrol.wait;", "~{memory}"  : () -> ()
  moa_gpu.wait_launches
  // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "griddepcontrol.launch_dependents;", "~{memory}"  : () -> ()
  moa_gpu.launch_next
  // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "mov.b32 $0, $1;", "=r,r" %arg3 : (i32) -> i32
  %hidden = moa_gpu.opaque %x
  llvm.store %hidden, %out : i32, !llvm.ptr<1>
  llvm.store %l, %out : vector<2xf32>, !llvm.ptr<1>
  llvm.store %t, %out : vector<2xi32>, !llvm.ptr<1>
  llvm.store %found, %out : i32, !llvm.ptr<1>
  llvm.return
}
