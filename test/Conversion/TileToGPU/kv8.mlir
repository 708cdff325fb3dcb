// RUN: moa-opt %s --convert-moa-tile-to-gpu=chip=sm_90a --canonicalize --cse --split-input-file | FileCheck %s --check-prefixes=CHECK,HOPPER --implicit-check-not=moa_tile
// RUN: moa-opt %s --convert-moa-tile-to-gpu=chip=sm_80 --canonicalize --cse --split-input-file | FileCheck %s --check-prefixes=CHECK,AMPERE --implicit-check-not=moa_tile

// 8-bit KV: blocks to codes and back, and decode that takes both.

// A block of 256 threads an item. Largest magnitudes of keys and values meet in
// shared memory; each format has a loop of its own; the other half of a page may
// come along. The way back is the other branch.
// CHECK-LABEL: llvm.func @quantise
// CHECK-SAME: %[[ITEMS:.*]]: !llvm.ptr<1> {llvm.noalias, llvm.readonly}, %{{.*}}: i32) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 64, rows = 0, keys = 0>, nvvm.kernel}
// CHECK: llvm.getelementptr %[[ITEMS]][{{.*}}!llvm.array<80 x i8>
// CHECK: scf.if
// CHECK: scf.for {{.*}} to %c512_i32 step %c256_i32 iter_args
// CHECK-COUNT-2: nvvm.redux.sync umax
// CHECK-NOT: nvvm.redux.sync
// CHECK: } else {
// CHECK-COUNT-2: arith.sitofp
func.func @quantise(%item: !moa_tile.item<quantise>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
  moa_tile.quantise_rows %item dims 64 of bf16 : !moa_tile.item<quantise>
  return
}

// -----

// A stage takes elements or codes and has the place and the scales of its page
// with it; elsewhere threads fetch either, and read the scales of a page while
// they compute on the one before. Queries are woven once. Each page asks whether it
// has codes, and of which format; those of elements are read woven. Codes become
// elements exactly: scales multiply scores, and what values add.
// CHECK-LABEL: llvm.func @decode
// CHECK-SAME: !llvm.array<448 x i8>
// HOPPER: %[[RING:.*]] = moa_gpu.ring readers = 4 : <8 x !moa_gpu.shared<128x64xbf16>, words = 8>
// HOPPER: %[[HAS:.*]] = arith.cmpi sge, %[[PLACE:.*]], %c536870912_i32 : i32
// HOPPER-NEXT: scf.if %[[HAS]] {
// HOPPER: moa_gpu.put %[[RING]][%{{.*}}] words(%[[PLACE]], %c0_i32, %c0_i32, %c0_i32)
// HOPPER-NEXT: ^bb0(%[[CODES:.*]]: !moa_gpu.shared<128x128xi8>, %[[FULL:.*]]: !moa_gpu.barrier):
// HOPPER-COUNT-2: moa_gpu.copy_in %{{.*}} to %[[CODES]][{{[01]}}, 0], %[[FULL]] read_once
// HOPPER: moa_gpu.copy_words %{{.*}}, %[[FULL]] : <1>
// HOPPER: } else {
// HOPPER: moa_gpu.put %[[RING]][%{{.*}}] words(%[[PLACE]], %c0_i32, %c0_i32, %c0_i32)
// HOPPER-NEXT: ^bb0(%{{.*}}: !moa_gpu.shared<128x64xbf16>, %{{.*}}: !moa_gpu.barrier):
// AMPERE: moa_gpu.buffers : <4 x !moa_gpu.shared<64x64xbf16>>
// AMPERE-COUNT-3: moa_gpu.fetch {{.*}} columns 64 into {{.*}} codes if %{{.*}} :
// CHECK-COUNT-4: moa_gpu.weave
// HOPPER: moa_gpu.get %[[RING]][{{.*}}, i32, i32, i32, i32, i32, i32, i32, i32
// AMPERE: moa_gpu.await
// AMPERE: moa_gpu.fetch {{.*}} codes if
// CHECK: moa_gpu.seal
// CHECK: moa_gpu.as_codes
// CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 0] : <{{(128|64)}}x128xi8>
// CHECK: moa_gpu.unpack %{{.*}} int8 to bf16
// CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 32] : <{{(128|64)}}x128xi8>
// CHECK: moa_gpu.unpack %{{.*}} e4m3 to bf16
// CHECK: moa_gpu.load_woven %{{.*}}[%{{.*}}, 48] : <
// CHECK: arith.mulf
// CHECK: moa_gpu.mask_columns
// CHECK: moa_gpu.unpack %{{.*}} int8 to bf16
// CHECK: moa_gpu.unpack %{{.*}} e4m3 to bf16
// CHECK: llvm.intr.fma
// CHECK: moa_gpu.load_woven %{{.*}}[%{{.*}}, 48] transposed : <
!item = !moa_tile.item<decode>
!state = !moa_tile.state<2x64>
!q = !moa_tile.tile<2x64xf32>
!kv = !moa_tile.tile<64x64xbf16>
func.func @decode(%item: !item) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 2, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !q
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] kv8 : !item -> !kv
    %x = moa_tile.scores %q, %k : !q, !kv -> !q
    %m = moa_tile.mask (sink, window, causal) %x, %item[%b] : !q, !item
    %p, %r = moa_tile.softmax_step %m, %s : !q, !state -> !q
    %v = moa_tile.load_values %item[%b] kv8 : !item -> !kv
    %n = moa_tile.accumulate %p, %v, %r skip_zero : !q, !kv, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}
