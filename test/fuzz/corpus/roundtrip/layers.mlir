module attributes {moa.model = #moa.model<layers = 30, q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f32, max_length = 8192>} {
  func.func @layer_0_prefill(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %v: tensor<?x3x64xf32>, %cache: !moa.cache<3x64xf32>) -> (tensor<?x9x64xf32>, !moa.cache<3x64xf32>) attributes {moa.layer = 0 : i64} {
    %c = moa.cache_append %k, %v, %cache : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
    %o = moa.attention %q, %c : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
    return %o, %c : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
  }
  func.func @layer_2_decode(%q: tensor<1x9x64xf32>, %k: tensor<1x3x64xf32>, %v: tensor<1x3x64xf32>, %cache: !moa.cache<3x64xf32>) -> (tensor<1x9x64xf32>, !moa.cache<3x64xf32>) attributes {moa.layer = 2 : i64} {
    %c = moa.cache_append %k, %v, %cache : tensor<1x3x64xf32>, !moa.cache<3x64xf32>
    %o = moa.decode %q, %c : tensor<1x9x64xf32>, !moa.cache<3x64xf32>
    return %o, %c : tensor<1x9x64xf32>, !moa.cache<3x64xf32>
  }
}
