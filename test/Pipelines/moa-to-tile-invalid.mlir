// RUN: moa-opt %s --moa-to-tile --split-input-file --verify-diagnostics

// A stage stops at the first form that does not hold and says which pass should
// have made it hold.

module attributes {moa.model = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 128, dtype = f32, max_length = 8192>} {
  func.func @layer_0_prefill(%q: tensor<?x4x128xf32>, %cache: !moa.cache<2x128xf32>) -> tensor<?x4x128xf32> attributes {moa.layer = 0 : i64} {
    // expected-error @below {{expected a window}}
    // expected-note @below {{moa-apply-plan}}
    %o = moa.attention %q, %cache : tensor<?x4x128xf32>, !moa.cache<2x128xf32>
    return %o : tensor<?x4x128xf32>
  }
}
