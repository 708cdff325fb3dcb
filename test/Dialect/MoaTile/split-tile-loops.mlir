// RUN: moa-opt %s --moa-split-tile-loops --moa-verify-tile-form | FileCheck %s

!item = !moa_tile.item<decode>
!state = !moa_tile.state<3x64>
!q = !moa_tile.tile<3x64xf32>
!kv = !moa_tile.tile<64x64xf32>

// CHECK-LABEL: func.func @kernel
func.func @kernel(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !q
  // CHECK: %[[S0:.*]] = moa_tile.init
  %s0 = moa_tile.init : !state
  // CHECK-NEXT: %[[S1:.*]] = moa_tile.for_blocks sink %{{.*}}, %[[S0]]
  // CHECK: moa_tile.mask (sink) %
  // CHECK: moa_tile.accumulate {{.*}} skip_zero
  // CHECK: %[[S2:.*]] = moa_tile.for_blocks edge %{{.*}}, %[[S1]]
  // CHECK: moa_tile.mask (sink, window) %
  // CHECK: moa_tile.accumulate {{.*}} skip_zero
  // CHECK: %[[S3:.*]] = moa_tile.for_blocks full %{{.*}}, %[[S2]]
  // CHECK: %[[X:.*]] = moa_tile.scores
  // CHECK-NEXT: moa_tile.softmax_step %[[X]],
  // CHECK-NEXT: moa_tile.load_values
  // CHECK-NOT: skip_zero
  // CHECK: %[[S4:.*]] = moa_tile.for_blocks diagonal %{{.*}}, %[[S3]]
  // CHECK: moa_tile.mask (sink, window, causal) %
  // CHECK: moa_tile.accumulate {{.*}} skip_zero
  // CHECK-NOT: for_blocks
  // CHECK: moa_tile.store_partial %[[S4]],
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !kv
    %x = moa_tile.scores %q, %k : !q, !kv -> !q
    %m = moa_tile.mask (sink, window, causal) %x, %item[%b] : !q, !item
    %p, %t = moa_tile.softmax_step %m, %s : !q, !state -> !q
    %v = moa_tile.load_values %item[%b] : !item -> !kv
    %n = moa_tile.accumulate %p, %v, %t skip_zero : !q, !kv, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}

// A loop that walks one segment already is left alone.
// CHECK-LABEL: func.func @already_split
func.func @already_split(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // CHECK-COUNT-1: moa_tile.for_blocks full
  // CHECK-NOT: for_blocks
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    moa_tile.yield %s : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}
