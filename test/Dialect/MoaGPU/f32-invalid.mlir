// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Tiles of f32 are fetched by threads and multiplied by warps, as tf32.

func.func @column_f32(%tile: !moa_gpu.shared<64x64xf32>, %row: i32) {
  // expected-error @+1 {{(C1) expected a column that is a multiple of 8 below 64, got 12}}
  %a = moa_gpu.load_matrix %tile[%row, 12] : !moa_gpu.shared<64x64xf32>
  return
}

// -----

func.func @transposed_f32(%tile: !moa_gpu.shared<64x64xf32>, %row: i32) {
  // expected-error @+1 {{(C2) expected a tile of 16-bit elements, or of codes, to be transposed, got '!moa_gpu.shared<64x64xf32>'}}
  %a = moa_gpu.load_matrix %tile[%row, 8] transposed : !moa_gpu.shared<64x64xf32>
  return
}

// -----

func.func @right_c1(%tile: !moa_gpu.shared<64x64xf16>, %row: i32) {
  // expected-error @+1 {{(C1) expected a tile of f32, got '!moa_gpu.shared<64x64xf16>'}}
  %a = moa_gpu.load_right %tile[%row, 0] : !moa_gpu.shared<64x64xf16>
  return
}

// -----

func.func @right_c2(%tile: !moa_gpu.shared<64x64xf32>, %row: i32) {
  // expected-error @+1 {{(C2) expected a column that is a multiple of 16 below 64, got 64}}
  %a = moa_gpu.load_right %tile[%row, 64] : !moa_gpu.shared<64x64xf32>
  return
}

// -----

func.func @split_c1(%v: vector<4xf32>) {
  // expected-error @+1 {{(C1) expected results of 4 elements, got 4 and 2}}
  %big, %small = moa_gpu.split %v : vector<4xf32> -> vector<4xi32>, vector<2xi32>
  return
}

// -----

llvm.func @shared_c2() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  // expected-error @+1 {{(C2) expected a tile of 16-bit elements, got '!moa_gpu.shared<64x64xf32>'; tiles of f32 are fetched into buffers}}
  %t = moa_gpu.shared : !moa_gpu.shared<64x64xf32>
  llvm.return
}
