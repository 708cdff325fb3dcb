// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Shapes of products; hazards-invalid.mlir has when they may be touched.

func.func @scores_c1_columns(%q: !moa_gpu.shared<64x128xf16>, %k: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{(C1) expected tiles of equal columns and types and a depth of a multiple of 16 up to those columns, got '!moa_gpu.shared<64x128xf16>', '!moa_gpu.shared<64x64xf16>' and depth 64}}
  %s = moa_gpu.scores %q[%r], %k keys 64 depth 64 : !moa_gpu.shared<64x128xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<32xf32>>
  return
}

// -----

func.func @scores_c1_element(%q: !moa_gpu.shared<64x64xbf16>, %k: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{(C1) expected tiles of equal columns and types}}
  %s = moa_gpu.scores %q[%r], %k keys 64 depth 64 : !moa_gpu.shared<64x64xbf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<32xf32>>
  return
}

// -----

func.func @scores_c1_depth(%q: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{(C1) expected tiles of equal columns and types and a depth of a multiple of 16 up to those columns, got '!moa_gpu.shared<64x64xf16>', '!moa_gpu.shared<64x64xf16>' and depth 80}}
  %s = moa_gpu.scores %q[%r], %q keys 64 depth 80 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<32xf32>>
  return
}

// -----

func.func @scores_c1_step(%q: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{depth 40}}
  %s = moa_gpu.scores %q[%r], %q keys 64 depth 40 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<32xf32>>
  return
}

// -----

func.func @scores_c1_none(%q: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{depth 0}}
  %s = moa_gpu.scores %q[%r], %q keys 64 depth 0 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<32xf32>>
  return
}

// -----

func.func @scores_c2_rows(%q: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{(C2) expected keys to be a multiple of 8 from 8 to 64, got 72}}
  %s = moa_gpu.scores %q[%r], %q keys 72 depth 64 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<36xf32>>
  return
}

// -----

func.func @scores_c2_most(%q: !moa_gpu.shared<320x64xf16>, %r: i32) {
  // expected-error @+1 {{(C2) expected keys to be a multiple of 8 from 8 to 256, got 264}}
  %s = moa_gpu.scores %q[%r], %q keys 264 depth 64 : !moa_gpu.shared<320x64xf16>, !moa_gpu.shared<320x64xf16> -> !moa_gpu.async<vector<132xf32>>
  return
}

// -----

func.func @scores_c2_step(%q: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{(C2) expected keys to be a multiple of 8 from 8 to 64, got 4}}
  %s = moa_gpu.scores %q[%r], %q keys 4 depth 64 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<2xf32>>
  return
}

// -----

func.func @scores_c3(%q: !moa_gpu.shared<64x64xf16>, %r: i32) {
  // expected-error @+1 {{(C3) expected a fragment of 32 elements, got 64}}
  %s = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<64xf32>>
  return
}

// -----

func.func @accumulate_c1_rows(%p: vector<32xi32>, %v: !moa_gpu.shared<64x64xf16>, %o: vector<32xf32>) {
  // expected-error @+1 {{(C1) expected probabilities of a multiple of 16 keys up to the tile's 64, got 128}}
  %s = moa_gpu.accumulate %p, %v, %o : vector<32xi32>, !moa_gpu.shared<64x64xf16>, vector<32xf32>
  return
}

// -----

func.func @accumulate_c1_step(%p: vector<6xi32>, %v: !moa_gpu.shared<64x64xf16>, %o: vector<32xf32>) {
  // expected-error @+1 {{(C1) expected probabilities of a multiple of 16 keys up to the tile's 64, got 24}}
  %s = moa_gpu.accumulate %p, %v, %o : vector<6xi32>, !moa_gpu.shared<64x64xf16>, vector<32xf32>
  return
}

// -----

func.func @accumulate_c2(%p: vector<16xi32>, %v: !moa_gpu.shared<64x128xf16>, %o: vector<32xf32>) {
  // expected-error @+1 {{(C2) expected an accumulator of 64 elements, got 32}}
  %s = moa_gpu.accumulate %p, %v, %o : vector<16xi32>, !moa_gpu.shared<64x128xf16>, vector<32xf32>
  return
}

// -----

func.func @accumulate_c3(%p: vector<16xi32>, %v: !moa_gpu.shared<64x320xf16>, %o: vector<160xf32>) {
  // expected-error @+1 {{(C3) expected values of at most 256 columns, got 320}}
  %s = moa_gpu.accumulate %p, %v, %o : vector<16xi32>, !moa_gpu.shared<64x320xf16>, vector<160xf32>
  return
}

// -----

func.func @accumulate_element(%p: vector<16xi32>, %v: !moa_gpu.shared<64x64xf16>, %o: vector<32xi32>) {
  // expected-error @+1 {{'accumulator' must be vector of 32-bit float values of ranks 1, but got 'vector<32xi32>'}}
  %s = moa_gpu.accumulate %p, %v, %o : vector<16xi32>, !moa_gpu.shared<64x64xf16>, vector<32xi32>
  return
}

// -----

func.func @wait_type(%p: vector<16xi32>) {
  // expected-error @+1 {{'product' must be a product in flight, but got 'vector<16xi32>'}}
  %s = moa_gpu.wait %p pending 0 : vector<16xi32>
  return
}
