// RUN: moa-opt %s --convert-moa-tile-to-cpu --split-input-file --verify-diagnostics

// The body of a loop computes one block, with one operation of each kind.

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @all(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{walks segment 'all', which has no CPU form}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
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
func.func @nested(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    // expected-error @+2 {{'moa_tile.init' op has no place in a loop over blocks}}
    // expected-note @+1 {{make kernels of the form}}
    %i = moa_tile.init : !state
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
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
func.func @empty(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected one moa_tile.load_keys, got 0}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    moa_tile.yield %s : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @two_keys(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected one moa_tile.load_keys, got 2}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %k2 = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
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
func.func @two_scores(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected one moa_tile.scores, got 2}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %x2 = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
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
func.func @two_steps(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected one moa_tile.softmax_step, got 2}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %p2, %r2 = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
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
func.func @no_values(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected one moa_tile.load_values, got 0}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    moa_tile.yield %r : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @two_accumulates(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected one moa_tile.accumulate, got 2}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    %n2 = moa_tile.accumulate %p, %v, %n : !t, !t, !state
    moa_tile.yield %n2 : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}
