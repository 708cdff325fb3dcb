// RUN: moa-opt %s --split-input-file --verify-diagnostics

func.func @load_keys_c3(%i: !moa_tile.item<decode>, %b: index) {
  // expected-error @+1 {{(C3) expected elements of f16 or bf16 beside kv8, got 'f32'}}
  %k = moa_tile.load_keys %i[%b] kv8 : !moa_tile.item<decode> -> !moa_tile.tile<64x64xf32>
  return
}

// -----

func.func @load_values_c3(%i: !moa_tile.item<prefill>, %b: index) {
  // expected-error @+1 {{(C3) expected elements of f16 or bf16 beside kv8, got 'f32'}}
  %v = moa_tile.load_values %i[%b] kv8 : !moa_tile.item<prefill> -> !moa_tile.tile<64x64xf32>
  return
}

// -----

func.func @quantise_c1(%i: !moa_tile.item<append>) {
  // expected-error @+1 {{(C1) expected an item of kind quantise, got append}}
  moa_tile.quantise_rows %i dims 64 of bf16 : !moa_tile.item<append>
  return
}

// -----

func.func @quantise_c2_type(%i: !moa_tile.item<quantise>) {
  // expected-error @+1 {{(C2) expected type f16 or bf16, got 'f32'}}
  moa_tile.quantise_rows %i dims 64 of f32 : !moa_tile.item<quantise>
  return
}

// -----

func.func @quantise_c2_dims(%i: !moa_tile.item<quantise>) {
  // expected-error @+1 {{(C2) expected a positive dims, got 0}}
  moa_tile.quantise_rows %i dims 0 of bf16 : !moa_tile.item<quantise>
  return
}
