// RUN: moa-opt %s --convert-moa-tile-to-cpu=chip=x86-64-v3 --split-input-file --verify-diagnostics

func.func @quantise_dims(%item: !moa_tile.item<quantise>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
  // expected-error @+2 {{expected a head size that is a multiple of 16, got 72}}
  // expected-note @+1 {{convert-moa-to-tile}}
  moa_tile.quantise_rows %item dims 72 of bf16 : !moa_tile.item<quantise>
  return
}

// -----

!item = !moa_tile.item<decode>
!state = !moa_tile.state<2x64>
!q = !moa_tile.tile<2x64xf32>
!kv = !moa_tile.tile<64x64xbf16>
func.func @keys_alone(%item: !item) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 2, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !q
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks full %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] kv8 : !item -> !kv
    %x = moa_tile.scores %q, %k : !q, !kv -> !q
    %p, %r = moa_tile.softmax_step %x, %s : !q, !state -> !q
    // expected-error @+2 {{expected kv8 on keys and values alike, got it on keys alone}}
    // expected-note @+1 {{convert-moa-to-tile}}
    %v = moa_tile.load_values %item[%b] : !item -> !kv
    %n = moa_tile.accumulate %p, %v, %r : !q, !kv, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}
