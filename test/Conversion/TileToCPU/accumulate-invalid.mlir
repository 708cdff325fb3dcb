// RUN: moa-opt %s --convert-moa-tile-to-cpu --split-input-file --verify-diagnostics

// The second half of a block: probabilities and values to the next state.

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @scores_for_probabilities(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    // expected-error @+2 {{expected its probabilities from moa_tile.softmax_step in the same block, got moa_tile.scores}}
    // expected-note @+1 {{make kernels of the form}}
    %n = moa_tile.accumulate %x, %v, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @keys_for_values(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    // expected-error @+2 {{expected its values from moa_tile.load_values in the same block, got moa_tile.load_keys}}
    // expected-note @+1 {{make kernels of the form}}
    %n = moa_tile.accumulate %p, %k, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @state_not_raised(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    // expected-error @+2 {{expected its state from moa_tile.softmax_step in the same block, got a block argument}}
    // expected-note @+1 {{make kernels of the form}}
    %n = moa_tile.accumulate %p, %v, %s : !t, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @yield_step(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    // expected-error @+2 {{expected its state from moa_tile.accumulate in the same block, got moa_tile.softmax_step}}
    // expected-note @+1 {{make kernels of the form}}
    moa_tile.yield %r : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}
