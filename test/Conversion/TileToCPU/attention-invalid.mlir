// RUN: moa-opt %s --convert-moa-tile-to-cpu --split-input-file --verify-diagnostics

// Shapes of an attention kernel, and what may stand outside its loops.

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>
func.func @lanes(%item: !item) attributes {moa_tile.config = #config} {
  // expected-error @+2 {{expected lanes = rows in 'moa_tile.config' for an item of kind prefill, got dims}}
  // expected-note @+1 {{make kernels of the form}}
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
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<decode>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
func.func @lanes_decode(%item: !item) attributes {moa_tile.config = #config} {
  // expected-error @+2 {{expected lanes = dims in 'moa_tile.config' for an item of kind decode, got rows}}
  // expected-note @+1 {{make kernels of the form}}
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
  moa_tile.store_partial %s1, %item : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 32, keys = 64>
func.func @config_rows(%item: !item) attributes {moa_tile.config = #config} {
  // expected-error @+2 {{expected queries of 32 rows, as 'moa_tile.config' says, got 64}}
  // expected-note @+1 {{make kernels of the form}}
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
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x64>
!t = !moa_tile.tile<64x64xbf16>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
!s = !moa_tile.tile<64x64xf32>
func.func @queries_f32(%item: !item) attributes {moa_tile.config = #config} {
  // expected-error @+2 {{expected queries of f32, in which scores are computed, got 'bf16'}}
  // expected-note @+1 {{make kernels of the form}}
  %q = moa_tile.load_queries %item : !item -> !t
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !s
    %p, %r = moa_tile.softmax_step %x, %s : !s, !state -> !s
    %v = moa_tile.load_values %item[%b] : !item -> !t
    %n = moa_tile.accumulate %p, %v, %r : !s, !t, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}

// -----

// Scores would be computed over 64 dims, outputs over 128.
!item = !moa_tile.item<prefill>
!state = !moa_tile.state<64x128>
!t = !moa_tile.tile<64x64xf32>
#config = #moa_tile.config<lanes = rows, rows = 64, keys = 64>
!v = !moa_tile.tile<64x128xf32>
func.func @state_shape(%item: !item) attributes {moa_tile.config = #config} {
  %q = moa_tile.load_queries %item : !item -> !t
  // expected-error @+2 {{expected a state of 64x64, the shape of the queries, got 64x128}}
  // expected-note @+1 {{make kernels of the form}}
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !t
    %x = moa_tile.scores %q, %k : !t, !t -> !t
    %p, %r = moa_tile.softmax_step %x, %s : !t, !state -> !t
    %v = moa_tile.load_values %item[%b] : !item -> !v
    %n = moa_tile.accumulate %p, %v, %r : !t, !v, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as f32 : !state, !item
  return
}
