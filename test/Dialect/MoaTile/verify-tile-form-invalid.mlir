// RUN: moa-opt %s --moa-verify-tile-form --split-input-file --verify-diagnostics

// expected-error @+2 {{expected attribute 'moa_tile.config' on a kernel}}
// expected-note @+1 {{convert-moa-to-tile sets it}}
func.func @no_config(%item: !moa_tile.item<decode>) {
  return
}

// -----

// expected-error @+1 {{expected a kernel to take one item alone, got 2 arguments}}
func.func @two_arguments(%item: !moa_tile.item<decode>, %n: index) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  return
}

// -----

func.func @unsplit(%item: !moa_tile.item<decode>) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %s0 = moa_tile.init : !moa_tile.state<3x64>
  // expected-error @+2 {{expected a loop over one kind of block, got 'all'}}
  // expected-note @+1 {{moa-split-tile-loops splits it}}
  %s1 = moa_tile.for_blocks all %item, %s0 : !moa_tile.item<decode>, !moa_tile.state<3x64> {
  ^bb0(%b: index, %s: !moa_tile.state<3x64>):
    moa_tile.yield %s : !moa_tile.state<3x64>
  }
  moa_tile.store_partial %s1, %item : !moa_tile.state<3x64>, !moa_tile.item<decode>
  return
}

// -----

func.func @state_twice(%item: !moa_tile.item<decode>) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+1 {{expected its state to be used exactly once, got 2 uses}}
  %s = moa_tile.init : !moa_tile.state<3x64>
  // expected-note @+1 {{used here}}
  moa_tile.store_partial %s, %item : !moa_tile.state<3x64>, !moa_tile.item<decode>
  // expected-note @+1 {{used here}}
  moa_tile.store_partial %s, %item : !moa_tile.state<3x64>, !moa_tile.item<decode>
  return
}

// -----

func.func @state_unused(%item: !moa_tile.item<decode>) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+1 {{expected its state to be used exactly once, but it is never used}}
  %s = moa_tile.init : !moa_tile.state<3x64>
  return
}

// -----

!item = !moa_tile.item<decode>
!state = !moa_tile.state<3x64>
!x = !moa_tile.tile<3x64xf32>
func.func @narrow_mask(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !x
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks edge %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %m = moa_tile.mask (window) %q, %item[%b] : !x, !item
    // expected-error @+2 {{expected scores with mask (sink, window), got (window), in segment 'edge'}}
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
func.func @unmasked(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !x
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks diagonal %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    // expected-error @+2 {{expected scores with mask (sink, window, causal), got (none), in segment 'diagonal'}}
    // expected-note @+1 {{moa-split-tile-loops makes loops of that form}}
    %p, %t = moa_tile.softmax_step %q, %s : !x, !state -> !x
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
func.func @unguarded(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !x
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks sink %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %v = moa_tile.load_values %item[%b] : !item -> !v
    // expected-error @+2 {{expected skip_zero in segment 'sink'}}
    // expected-note @+1 {{moa-split-tile-loops makes loops of that form}}
    %t = moa_tile.accumulate %q, %v, %s : !x, !v, !state
    moa_tile.yield %t : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}
