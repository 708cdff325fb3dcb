// RUN: moa-opt %s --canonicalize | FileCheck %s

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>

// CHECK-LABEL: func.func @merge_causal
// CHECK-SAME: %[[X:[^:]*]]: !moa_tile.tile
func.func @merge_causal(%x: !t, %item: !item, %b: index) -> !t {
  // CHECK-NEXT: %[[M:.*]] = moa_tile.mask (sink, window, causal) %[[X]],
  // CHECK-NEXT: return %[[M]]
  %m = moa_tile.mask (sink, window) %x, %item[%b] : !t, !item
  %n = moa_tile.mask (causal) %m, %item[%b] : !t, !item
  return %n : !t
}

// Sink and window are joined by "or": both in a row hide more than one of both.
// CHECK-LABEL: func.func @keep_sink_of_window
func.func @keep_sink_of_window(%x: !t, %item: !item, %b: index) -> !t {
  // CHECK: moa_tile.mask (sink)
  // CHECK: moa_tile.mask (window)
  %m = moa_tile.mask (sink) %x, %item[%b] : !t, !item
  %n = moa_tile.mask (window) %m, %item[%b] : !t, !item
  return %n : !t
}

// CHECK-LABEL: func.func @keep_other_block
func.func @keep_other_block(%x: !t, %item: !item, %b: index, %c: index) -> !t {
  // CHECK: moa_tile.mask (causal)
  // CHECK: moa_tile.mask (causal)
  %m = moa_tile.mask (causal) %x, %item[%b] : !t, !item
  %n = moa_tile.mask (causal) %m, %item[%c] : !t, !item
  return %n : !t
}

// The dead load goes first, then the loop that hands its state through.
// CHECK-LABEL: func.func @empty_loop
func.func @empty_loop(%item: !item) {
  // CHECK-NEXT: %[[S:.*]] = moa_tile.init
  // CHECK-NEXT: moa_tile.store %[[S]],
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    moa_tile.yield %s : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}
