// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C4) expected a number of kv formats that divides the 4 spans, got 3}}
func.func private @window_c4_count() attributes {a = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [3 x int8]>}

// -----

// expected-error @+1 {{(C4) expected a kv format of 8 bits, got 2 x model; leave kv out}}
func.func private @window_c4_model() attributes {a = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [2 x model]>}

// -----

// expected-error @+1 {{expected format model, e4m3 or int8, got e5m2}}
func.func private @window_format() attributes {a = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [e5m2]>}

// -----

// expected-error @+1 {{expected a run of 1 to 65536 KV heads, got 0}}
func.func private @window_run() attributes {a = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [0 x e4m3]>}

// -----

// expected-error @+1 {{(C5) expected no kv8 on a kernel of kind append}}
func.func private @kernel_c5_kind() attributes {a = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = bf16, layers = [0], kv8 = true>}

// -----

// expected-error @+1 {{(C5) expected dtype f16 or bf16 beside 8 bits, got 'f32'}}
func.func private @kernel_c5_dtype() attributes {a = #moa.kernel<kind = decode, head_dim = 64, group = 1, dtype = f32, layers = [0], kv8 = true>}

// -----

// expected-error @+1 {{(C5) expected dtype f16 or bf16 beside 8 bits, got 'f32'}}
func.func private @kernel_c5_quantise() attributes {a = #moa.kernel<kind = quantise, head_dim = 64, group = 1, dtype = f32, layers = [0]>}

// -----

func.func @attention_c3_count(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) {
  // expected-error @+1 {{(C3) expected one kv format per KV head (2), got 4}}
  %o = moa.attention %q, %c window(<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [4 x e4m3]>) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return
}

// -----

func.func @decode_c3_f32(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C3) expected f16 or bf16 beside pages of 8 bits, got '!moa.cache<2x64xf32>'}}
  %o = moa.decode %q, %c window(<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [2 x e4m3]>) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return
}
