// RUN: moa-opt %s --convert-moa-tile-to-cpu --split-input-file --verify-diagnostics

// One set of queries and one state a kernel, each state used once.

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
// expected-error @+2 {{expected one moa_tile.load_queries, got 2}}
// expected-note @+1 {{make kernels of the form}}
func.func @two_queries(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %q2 = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
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
// expected-error @+2 {{expected one moa_tile.init, got 2}}
// expected-note @+1 {{make kernels of the form}}
func.func @two_inits(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s2 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
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
func.func @store_type(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  // expected-error @+2 {{expected element type 'f32', that of the kernel's first keys, got 'bf16'}}
  // expected-note @+1 {{make kernels of the form}}
  moa_tile.store %s1, %item as bf16 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @state_twice(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  // expected-error @+2 {{expected its state to be used exactly once, got 2 uses}}
  // expected-note @+1 {{make kernels of the form}}
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  moa_tile.store %s0, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @no_store(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  // expected-error @+2 {{expected its state to be used exactly once, got 0 uses}}
  // expected-note @+1 {{make kernels of the form}}
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  return
}
