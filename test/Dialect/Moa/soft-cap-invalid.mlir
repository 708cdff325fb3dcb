// RUN: moa-opt %s --split-input-file --verify-diagnostics

func.func @zero(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{'moa.attention' op (C5) expected a soft cap between 2^-20 and 2^20, got 0.000000e+00 : f32}}
  %o = moa.attention %q, %c soft_cap(0.0) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @nan(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{'moa.decode' op (C5) expected a soft cap between 2^-20 and 2^20, got 0x7FC00000 : f32}}
  %o = moa.decode %q, %c soft_cap(0x7FC00000) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @large(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C5) expected a soft cap between 2^-20 and 2^20, got 2.000000e+06 : f32}}
  %o = moa.attention %q, %c soft_cap(2.0e6) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

// expected-error @+1 {{(C5) expected a soft_cap of f32 between 2^-20 and 2^20, got -5.000000e+01 : f32}}
#model = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 64, soft_cap = -50.0 : f32>

// -----

// expected-error @+1 {{(C5) expected a soft_cap of f32 between 2^-20 and 2^20, got 5.000000e+01 : f64}}
#model = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 64, soft_cap = 50.0 : f64>

// -----

// expected-error @+1 {{(C6) expected no soft_cap on a kernel of kind append, got 5.000000e+01 : f32}}
#kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0], soft_cap = 50.0 : f32>

// -----

// expected-error @+1 {{(C6) expected a soft_cap of f32 between 2^-20 and 2^20, got 5.000000e-07 : f32}}
#kernel = #moa.kernel<kind = decode, head_dim = 64, group = 1, dtype = f32, layers = [0], soft_cap = 5.0e-7 : f32>
