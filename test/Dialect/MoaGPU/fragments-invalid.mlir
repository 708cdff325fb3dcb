// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Arithmetic on fragments; the types of its pairs and factors are the parser's.

func.func @mask_c1(%s: vector<6xf32>, %i: i32) {
  // expected-error @+1 {{(C1) expected a fragment of a multiple of 4 elements, got 6}}
  %m = moa_gpu.mask %s row %i key %i starts %i, %i sink %i : vector<6xf32>
  return
}

// -----

func.func @row_reduce_c1(%s: vector<2xf32>) {
  // expected-error @+1 {{(C1) expected a fragment of a multiple of 4 elements, got 2}}
  %m = moa_gpu.row_reduce max %s : vector<2xf32>
  return
}

// -----

func.func @reduction(%s: vector<4xf32>) {
  // expected-error @+2 {{expected ::moa::gpu::Reduction to be one of: max, add}}
  // expected-error @+1 {{failed to parse MoaGPU_ReductionAttr parameter 'value'}}
  %m = moa_gpu.row_reduce mul %s : vector<4xf32>
  return
}

// -----

func.func @exp2_c1(%s: vector<6xf32>, %c: f32, %b: vector<2xf32>) {
  // expected-error @+1 {{(C1) expected a fragment of a multiple of 4 elements, got 6}}
  %m = moa_gpu.exp2 %s * %c - %b : vector<6xf32>
  return
}

// -----

func.func @tanh_c1(%s: vector<2xf32>, %c: f32) {
  // expected-error @+1 {{(C1) expected a fragment of a multiple of 4 elements, got 2}}
  %m = moa_gpu.tanh %s * %c : vector<2xf32>
  return
}

// -----

func.func @row_scale_c1(%s: vector<2xf32>, %b: vector<2xf32>) {
  // expected-error @+1 {{(C1) expected a fragment of a multiple of 4 elements, got 2}}
  %m = moa_gpu.row_scale %s, %b : vector<2xf32>
  return
}

// -----

func.func @pack_c1_fragment(%s: vector<2xf32>) {
  // expected-error @+1 {{(C1) expected a fragment of a multiple of 4 elements, got 2}}
  %m = moa_gpu.pack %s to f16 : vector<2xf32> -> vector<1xi32>
  return
}

// -----

func.func @pack_c1_result(%s: vector<8xf32>) {
  // expected-error @+1 {{(C1) expected a result of 4 pairs, got 8}}
  %m = moa_gpu.pack %s to f16 : vector<8xf32> -> vector<8xi32>
  return
}

// -----

func.func @pack_c2(%s: vector<8xf32>) {
  // expected-error @+1 {{(C2) expected type f16 or bf16, got 'f32'}}
  %m = moa_gpu.pack %s to f32 : vector<8xf32> -> vector<4xi32>
  return
}

// -----

func.func @element(%s: vector<8xf16>) {
  // expected-error @+1 {{operand #0 must be vector of 32-bit float values of ranks 1, but got 'vector<8xf16>'}}
  %m = moa_gpu.row_reduce add %s : vector<8xf16>
  return
}

// -----

func.func @stage_c1(%t: !moa_gpu.shared<64x64xf16>, %row: i32, %f: vector<32xi32>) {
  // expected-error @+1 {{(C1) expected a fragment of 16 pairs, got 32}}
  moa_gpu.stage %f, %t[%row] : vector<32xi32>, !moa_gpu.shared<64x64xf16>
  return
}
