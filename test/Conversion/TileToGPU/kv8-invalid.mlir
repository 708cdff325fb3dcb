// RUN: moa-opt %s --convert-moa-tile-to-gpu=chip=sm_90a --split-input-file --verify-diagnostics
// RUN: moa-opt %s --convert-moa-tile-to-gpu=chip=sm_80 --split-input-file --verify-diagnostics

// Kernels of 8-bit KV are refused, never lowered as if all pages were alike.

// expected-error @+1 {{8-bit KV has kernels for CPUs alone; leave kv/format out of the plan for a GPU, or compile with --target cpu}}
func.func @quantise(%item: !moa_tile.item<quantise>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
  moa_tile.quantise_rows %item dims 64 of bf16 : !moa_tile.item<quantise>
  return
}

// -----

!item = !moa_tile.item<decode>
!state = !moa_tile.state<2x64>
!q = !moa_tile.tile<2x64xf32>
!kv = !moa_tile.tile<64x64xbf16>
// expected-error @+1 {{8-bit KV has kernels for CPUs alone}}
func.func @decode(%item: !item) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 2, keys = 64>} {
  %q = moa_tile.load_queries %item : !item -> !q
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] kv8 : !item -> !kv
    %x = moa_tile.scores %q, %k : !q, !kv -> !q
    %m = moa_tile.mask (sink, window, causal) %x, %item[%b] : !q, !item
    %p, %r = moa_tile.softmax_step %m, %s : !q, !state -> !q
    %v = moa_tile.load_values %item[%b] kv8 : !item -> !kv
    %n = moa_tile.accumulate %p, %v, %r skip_zero : !q, !kv, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store_partial %s1, %item : !state, !item
  return
}
