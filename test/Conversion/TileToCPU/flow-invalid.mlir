// RUN: moa-opt %s --convert-moa-tile-to-cpu --split-input-file --verify-diagnostics

// Scores, probabilities and the state exist once in scratch: values of a block
// flow from keys to the next state along one path.

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @two_masks(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %m = moa_tile.mask (sink) %x, %item[%b] : !t, !item
    // expected-error @+2 {{expected at most one mask, got 2}}
    // expected-note @+1 {{make kernels of the form}}
    %m2 = moa_tile.mask (sink) %m, %item[%b] : !t, !item
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

// Both loads of a block have one element type.
!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @keys_type(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    // expected-error @+2 {{expected element type 'f32', that of the kernel's first keys, got 'bf16'}}
    // expected-note @+1 {{make kernels of the form}}
    %v = moa_tile.load_values %item[%b] : !item -> !moa_tile.tile<64x64xbf16>
    %n = moa_tile.accumulate %p, %v, %r : !t, !moa_tile.tile<64x64xbf16>, !state
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
func.func @scores_of_keys(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    // expected-error @+2 {{expected its queries from the kernel's moa_tile.load_queries, got moa_tile.load_keys}}
    // expected-note @+1 {{make kernels of the form}}
    %x = moa_tile.scores %k, %k : !t, !t -> !t
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
func.func @keys_of_values(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    // expected-error @+2 {{expected its keys from moa_tile.load_keys in the same block, got moa_tile.load_values}}
    // expected-note @+1 {{make kernels of the form}}
    %x = moa_tile.scores %q, %v : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
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
func.func @mask_of_keys(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    // expected-error @+2 {{expected its scores from moa_tile.scores in the same block, got moa_tile.load_keys}}
    // expected-note @+1 {{make kernels of the form}}
    %m = moa_tile.mask (sink) %k, %item[%b] : !t, !item
    %p, %r = moa_tile.softmax_step %m, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !t, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

// The mask would change the scores in place, used or not.
!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @unmasked(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %m = moa_tile.mask (sink) %x, %item[%b] : !t, !item
    // expected-error @+2 {{expected its scores from moa_tile.mask in the same block, got moa_tile.scores}}
    // expected-note @+1 {{make kernels of the form}}
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
func.func @step_of_keys(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    // expected-error @+2 {{expected its scores from moa_tile.scores in the same block, got moa_tile.load_keys}}
    // expected-note @+1 {{make kernels of the form}}
    %p, %r = moa_tile.softmax_step %k, %s : !t, !state -> !t
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
func.func @probabilities(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    // expected-error @+2 {{expected probabilities of f32, got 'bf16'}}
    // expected-note @+1 {{make kernels of the form}}
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !moa_tile.tile<64x64xbf16>
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !moa_tile.tile<64x64xbf16>, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}
