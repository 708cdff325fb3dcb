// One prefill kernel, loops whole; tests set DIMS, KEYS, TYPE and nothing else.
!item = !moa_tile.item<prefill>
!state = !moa_tile.state<128xDIMS>
!q = !moa_tile.tile<128xDIMSxf32>
!kv = !moa_tile.tile<KEYSxDIMSxTYPE>
!s = !moa_tile.tile<128xKEYSxf32>
func.func @prefill(%item: !item) attributes {
    moa_tile.config = #moa_tile.config<lanes = rows, rows = 128, keys = KEYS>} {
  %q = moa_tile.load_queries %item : !item -> !q
  %s0 = moa_tile.init : !state
  %s1 = moa_tile.for_blocks all %item, %s0 : !item, !state {
  ^bb0(%b: index, %s: !state):
    %k = moa_tile.load_keys %item[%b] : !item -> !kv
    %x = moa_tile.scores %q, %k : !q, !kv -> !s
    %m = moa_tile.mask (sink, window, causal) %x, %item[%b] : !s, !item
    %p, %t = moa_tile.softmax_step %m, %s : !s, !state -> !s
    %v = moa_tile.load_values %item[%b] : !item -> !kv
    %n = moa_tile.accumulate %p, %v, %t skip_zero : !s, !kv, !state
    moa_tile.yield %n : !state
  }
  moa_tile.store %s1, %item as TYPE : !state, !item
  return
}
