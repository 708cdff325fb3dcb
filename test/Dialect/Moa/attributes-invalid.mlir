// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C1) expected beta between 0 and 1, got 1.500000e+00}}
func.func private @span_c1() attributes {a = #moa.span<1.5 * N>}

// -----

// expected-error @+1 {{(C1) expected beta between 0 and 1, got -2.500000e-01}}
func.func private @span_c1_negative() attributes {a = #moa.span<0 + -0.25 * N>}

// -----

// expected-error @+1 {{(C1) expected beta between 0 and 1, got -0.000000e+00}}
func.func private @span_c1_negative_zero() attributes {a = #moa.span<0 + -0.0 * N>}

// -----

// expected-error @+1 {{(C2) expected alpha between -2^40 and 2^40, got 1099511627777}}
func.func private @span_c2() attributes {a = #moa.span<1099511627777>}

// -----

// expected-error @+1 {{expected '*'}}
func.func private @span_syntax() attributes {a = #moa.span<0 + 0.5 N>}

// -----

// expected-error @+1 {{(C1) expected at least one span}}
func.func private @window_c1() attributes {a = #moa.window<[], sink = 64, block = 64, min = 128, length = request>}

// -----

// expected-error @+1 {{(C2) expected 0 <= sink < min <= 1048576, got sink = 128, min = 128}}
func.func private @window_c2() attributes {a = #moa.window<[(0)], sink = 128, block = 64, min = 128, length = request>}

// -----

// expected-error @+1 {{(C2) expected 0 <= sink < min <= 1048576, got sink = -1, min = 128}}
func.func private @window_c2_negative() attributes {a = #moa.window<[(0)], sink = -1, block = 64, min = 128, length = request>}

// -----

// What a rule's 32 bits cannot hold is refused, not cut.
// expected-error @+1 {{(C2) expected 0 <= sink < min <= 1048576, got sink = 64, min = 4294967424}}
func.func private @window_c2_wide() attributes {a = #moa.window<[(0)], sink = 64, block = 64, min = 4294967424, length = request>}

// -----

// expected-error @+1 {{(C3) expected block between 1 and 1048576, got 0}}
func.func private @window_c3() attributes {a = #moa.window<[(0)], sink = 64, block = 0, min = 128, length = request>}

// -----

// expected-error @+1 {{expected a run of 1 to 65536 heads, got 0}}
func.func private @window_empty_run() attributes {a = #moa.window<[0 x (128)], sink = 64, block = 64, min = 128, length = request>}

// -----

// expected-error @+2 {{expected ::moa::LengthRule to be one of: request, row}}
// expected-error @+1 {{failed to parse Moa_WindowAttr parameter 'length'}}
func.func private @window_length() attributes {a = #moa.window<[(128)], sink = 64, block = 64, min = 128, length = batch>}

// -----

// expected-error @+1 {{(C1) expected sizes between 1 and 65536 and max_length between 1 and 1073741824, got layers = 0, q_heads = 4, kv_heads = 2, max_length = 8}}
func.func private @model_c1() attributes {a = #moa.model<layers = 0, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 8>}

// -----

// expected-error @+1 {{max_length = 2147483648}}
func.func private @model_c1_length() attributes {a = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 2147483648>}

// -----

// expected-error @+1 {{(C2) expected q_heads to be 1 to 16 times kv_heads, got 9 and 2}}
func.func private @model_c2() attributes {a = #moa.model<layers = 1, q_heads = 9, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 8>}

// -----

// expected-error @+1 {{(C2) expected q_heads to be 1 to 16 times kv_heads, got 17 and 1}}
func.func private @model_c2_group() attributes {a = #moa.model<layers = 1, q_heads = 17, kv_heads = 1, head_dim = 64, dtype = f32, max_length = 8>}

// -----

// expected-error @+1 {{(C3) expected head_dim 64, 80, 96, 128, 192 or 256, got 72}}
func.func private @model_c3() attributes {a = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 72, dtype = f32, max_length = 8>}

// -----

// expected-error @+1 {{(C4) expected dtype f32, f16 or bf16, got 'f64'}}
func.func private @model_c4() attributes {a = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f64, max_length = 8>}

// -----

// expected-error @+1 {{(C1) expected pages of 64 tokens, got 32}}
func.func private @layout_c1() attributes {a = #moa.cache_layout<page = 32, page_bytes = 1, deciding = [[0]]>}

// -----

// expected-error @+1 {{(C2) expected positive page_bytes, got 0}}
func.func private @layout_c2() attributes {a = #moa.cache_layout<page = 64, page_bytes = 0, deciding = [[0]]>}

// -----

// expected-error @+1 {{(C3) expected a deciding query head for KV head 1}}
func.func private @layout_c3() attributes {a = #moa.cache_layout<page = 64, page_bytes = 1, deciding = [[0], []]>}

// -----

// expected-error @+1 {{(C4) expected one page count per KV head (2), got 1}}
func.func private @layout_c4() attributes {a = #moa.cache_layout<page = 64, page_bytes = 1, deciding = [[0], [1]], pages = [3]>}

// -----

// expected-error @+1 {{(C1) expected rows between 1 and 256, got 257}}
func.func private @tile_c1() attributes {a = #moa.tile_config<lanes = rows, rows = 257, keys = 64>}

// -----

// expected-error @+1 {{(C2) expected keys = 64 or 128, got 96}}
func.func private @tile_c2() attributes {a = #moa.tile_config<lanes = rows, rows = 64, keys = 96>}

// -----

// expected-error @+1 {{(C1) expected a positive head_dim and a group of 1 to 16, got 64 and 17}}
func.func private @kernel_c1() attributes {a = #moa.kernel<kind = decode, head_dim = 64, group = 17, dtype = f32, layers = [0]>}

// -----

// expected-error @+1 {{(C2) expected dtype f32, f16 or bf16, got 'i8'}}
func.func private @kernel_c2() attributes {a = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = i8, layers = [0]>}

// -----

// expected-error @+1 {{(C3) expected increasing layers, got}}
func.func private @kernel_c3() attributes {a = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [1, 1]>}

// -----

// expected-error @+1 {{(C3) expected increasing layers, got}}
func.func private @kernel_c3_empty() attributes {a = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = []>}

// -----

// expected-error @+1 {{(C4) expected a rope of at most 64 elements on a rope kernel, got}}
func.func private @kernel_c4() attributes {a = #moa.kernel<kind = rope, head_dim = 64, group = 1, dtype = f32, layers = [0]>}

// -----

// expected-error @+1 {{(C4) expected a rope of at most 64 elements on a rope kernel, got #moa.rope<half, 80>}}
func.func private @kernel_c4_wide() attributes {a = #moa.kernel<kind = rope, head_dim = 64, group = 1, dtype = f32, layers = [0], rope = <half, 80>>}

// -----

// expected-error @+1 {{(C4) expected no rope on a kernel of kind append, got #moa.rope<half, 64>}}
func.func private @kernel_c4_append() attributes {a = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0], rope = <half, 64>>}

// -----

// expected-error @+1 {{(C1) expected an even rotary_dim of at least 2, got 31}}
func.func private @rope_c1() attributes {a = #moa.rope<interleaved, 31>}

// -----

// expected-error @+1 {{(C5) expected most between 0 and 1048576 and no sink beside it, got most = 300, sink = 64}}
func.func private @window_c5_sink() attributes {a = #moa.window<[(N)] most 300, sink = 64, block = 64, min = 128, length = row>}

// -----

// expected-error @+1 {{(C5) expected most between 0 and 1048576 and no sink beside it, got most = 1048577, sink = 0}}
func.func private @window_c5_long() attributes {a = #moa.window<[(N)] most 1048577, sink = 0, block = 64, min = 128, length = row>}
