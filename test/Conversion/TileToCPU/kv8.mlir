// RUN: moa-opt %s --convert-moa-tile-to-cpu=chip=x86-64-v3 | FileCheck %s
// RUN: moa-opt %s --convert-moa-tile-to-cpu=chip=x86-64-v4-bf16 | FileCheck %s --check-prefix=V4

// A block's format, at offset 40 of its 48 bytes, is read once for keys and once
// for values; behind it stand loops over elements, e4m3 and int8. E4m3 goes by
// f16, int8 by integers less 128. Pairs of bf16 are not used.

!item = !moa_tile.item<decode>
!state = !moa_tile.state<2x64>
!q = !moa_tile.tile<2x64xf32>
!kv = !moa_tile.tile<64x64xbf16>
// CHECK-LABEL: func.func @decode
// V4-LABEL: func.func @decode
// V4-NOT: dpbf16ps
func.func @decode(%item: !item) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 2, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !q
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    // CHECK: arith.constant 48 : i64
    // CHECK: llvm.getelementptr %{{.*}}[40]
    // CHECK: %[[FORMAT:.*]] = llvm.load %{{.*}} : !llvm.ptr -> i32
    // CHECK: llvm.getelementptr %{{.*}}[32]
    // CHECK: %[[MODEL:.*]] = arith.cmpi eq, %[[FORMAT]]
    // CHECK: scf.if %[[MODEL]] {
    // CHECK: llvm.load %{{.*}} : !llvm.ptr -> vector<8xbf16>
    // CHECK: } else {
    // CHECK: %[[E4M3:.*]] = arith.cmpi eq, %[[FORMAT]]
    // CHECK: scf.if %[[E4M3]] {
    // CHECK: llvm.load %{{.*}} {alignment = 1 : i64} : !llvm.ptr -> vector<8xi8>
    // CHECK: arith.extf %{{.*}} : vector<8xf16> to vector<8xf32>
    // CHECK: } else {
    // CHECK: llvm.load %{{.*}} {alignment = 1 : i64} : !llvm.ptr -> vector<8xi8>
    // CHECK: arith.sitofp %{{.*}} : vector<8xi32> to vector<8xf32>
    %k = moa_tile.load_keys %item[%b] kv8 : !item -> !kv
    %x = moa_tile.scores %q, %k : !q, !kv -> !q
    %p, %r = moa_tile.softmax_step %x, %s : !q, !state -> !q
    // CHECK: arith.constant 48 : i64
    // CHECK: llvm.getelementptr %{{.*}}[40]
    // CHECK-COUNT-2: llvm.load %{{.*}} {alignment = 1 : i64} : !llvm.ptr -> vector<8xi8>
    %v = moa_tile.load_values %item[%b] kv8 : !item -> !kv
    %n = moa_tile.accumulate %p, %v, %r : !q, !kv, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}

// Two passes a tensor, the second with a loop for each format.
// CHECK-LABEL: func.func @quantise
// CHECK-SAME: moa.scratch_bytes = 0
func.func @quantise(%item: !moa_tile.item<quantise>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
  // CHECK: vector.reduction <maxsi>
  // CHECK: arith.divf
  // CHECK: scf.if
  // CHECK-COUNT-8: arith.trunci %{{.*}} : vector<8xi32> to vector<8xi8>
  // CHECK: } else {
  // CHECK-COUNT-8: arith.trunci %{{.*}} : vector<8xi32> to vector<8xi8>
  // CHECK: vector.reduction <maxsi>
  // CHECK-COUNT-16: arith.trunci
  // CHECK-NOT: arith.trunci
  moa_tile.quantise_rows %item dims 64 of bf16 : !moa_tile.item<quantise>
  return
}
