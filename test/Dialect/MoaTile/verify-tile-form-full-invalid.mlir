// RUN: moa-opt %s --moa-verify-tile-form --split-input-file --verify-diagnostics

// Blocks seen whole have no mask and no guard; states inside loops are linear
// too; a kernel has one item.

!item = !moa_tile.item<decode>
!state = !moa_tile.state<3x64>
!x = !moa_tile.tile<3x64xf32>
!v = !moa_tile.tile<64x64xf32>
func.func @masked(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !x
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %m = moa_tile.mask (sink) %q, %item[%b] : !x, !item
    // expected-error @+2 {{expected scores with mask (none), got (sink), in segment 'full'}}
    // expected-note @+1 {{moa-split-tile-loops makes loops of that form}}
    %p, %t = moa_tile.softmax_step %m, %s : !x, !state -> !x
    moa_tile.yield %t : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}

// -----

!item = !moa_tile.item<decode>
!state = !moa_tile.state<3x64>
!x = !moa_tile.tile<3x64xf32>
!v = !moa_tile.tile<64x64xf32>
func.func @guarded(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !x
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %v = moa_tile.load_values %item[%b] : !item -> !v
    // expected-error @+2 {{expected no skip_zero in segment 'full'}}
    // expected-note @+1 {{moa-split-tile-loops makes loops of that form}}
    %t = moa_tile.accumulate %q, %v, %s skip_zero : !x, !v, !state
    moa_tile.yield %t : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}

// -----

!item = !moa_tile.item<decode>
!state = !moa_tile.state<3x64>
!x = !moa_tile.tile<3x64xf32>
!v = !moa_tile.tile<64x64xf32>
func.func @state_of_loop(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %s0 = moa_tile.init : !state
  // expected-error @+1 {{expected its state to be used exactly once, got 2 uses}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    // expected-note @+1 {{used here}}
    moa_tile.store_partial %s, %item : !state, !item
    // expected-note @+1 {{used here}}
    moa_tile.yield %s : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}

// -----

// expected-error @+1 {{expected a kernel to take one item alone, got 2 arguments}}
func.func @two_items(%item: !moa_tile.item<decode>, %other: !moa_tile.item<decode>) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  return
}

// -----

// The attribute is there, but says nothing of tiles.
// expected-error @+2 {{expected attribute 'moa_tile.config' on a kernel}}
// expected-note @+1 {{convert-moa-to-tile sets it}}
func.func @config_of_another_kind(%item: !moa_tile.item<append>) attributes {
    moa_tile.config = 64 : i64} {
  return
}
