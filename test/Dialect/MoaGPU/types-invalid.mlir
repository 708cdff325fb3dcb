// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C1) expected rows and columns that are positive multiples of 64 and 64, got 32x64}}
func.func private @shared_c1_rows(!moa_gpu.shared<32x64xf16>)

// -----

// expected-error @+1 {{(C1) expected rows and columns that are positive multiples of 64 and 64, got 64x80}}
func.func private @shared_c1_columns(!moa_gpu.shared<64x80xf16>)

// -----

// expected-error @+1 {{(C1) expected rows and columns that are positive multiples of 64 and 64, got 0x64}}
func.func private @shared_c1_zero(!moa_gpu.shared<0x64xf16>)

// -----

// expected-error @+1 {{(C1) expected rows and columns that are positive multiples of 16 and 32, got 24x32}}
func.func private @shared_c1_f32_rows(!moa_gpu.shared<24x32xf32>)

// -----

// expected-error @+1 {{(C1) expected rows and columns that are positive multiples of 16 and 32, got 16x80}}
func.func private @shared_c1_f32_columns(!moa_gpu.shared<16x80xf32>)

// -----

// expected-error @+1 {{(C2) expected element type f32, f16, bf16 or i8, got 'i32'}}
func.func private @shared_c2(!moa_gpu.shared<64x64xi32>)

// -----

// expected-error @+1 {{expected a shape of 2 dimensions, got 3}}
func.func private @shared_rank(!moa_gpu.shared<2x64x64xf16>)

// -----

// expected-error @+1 {{(C1) expected 1 to 8 stages, got 0}}
func.func private @ring_c1_none(!moa_gpu.ring<0 x !moa_gpu.shared<64x64xf16>>)

// -----

// expected-error @+1 {{(C1) expected 1 to 8 stages, got 9}}
func.func private @ring_c1_many(!moa_gpu.ring<9 x !moa_gpu.shared<64x64xf16>>)

// -----

// expected-error @+1 {{(C3) expected a tile of 16-bit elements, got '!moa_gpu.shared<64x64xf32>'}}
func.func private @ring_c3(!moa_gpu.ring<2 x !moa_gpu.shared<64x64xf32>>)

// -----

// expected-error @+1 {{(C1) expected a one-dimensional vector of f32, got 'vector<64xf16>'}}
func.func private @async_c1_element(!moa_gpu.async<vector<64xf16>>)

// -----

// expected-error @+1 {{(C1) expected a one-dimensional vector of f32, got 'vector<2x32xf32>'}}
func.func private @async_c1_rank(!moa_gpu.async<vector<2x32xf32>>)

// -----

// expected-error @+1 {{(C1) expected a multiple of 32 between 32 and 1024 threads, got 0}}
func.func private @launch_c1_none() attributes {a = #moa_gpu.launch<threads = 0, registers = 168, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C1) expected a multiple of 32 between 32 and 1024 threads, got 1056}}
func.func private @launch_c1_many() attributes {a = #moa_gpu.launch<threads = 1056, registers = 168, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C1) expected a multiple of 32 between 32 and 1024 threads, got 100}}
func.func private @launch_c1_warps() attributes {a = #moa_gpu.launch<threads = 100, registers = 168, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C2) expected 255 registers, or a multiple of 8 between 24 and 248, got 16}}
func.func private @launch_c2_few() attributes {a = #moa_gpu.launch<threads = 384, registers = 16, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C2) expected 255 registers, or a multiple of 8 between 24 and 248, got 169}}
func.func private @launch_c2_step() attributes {a = #moa_gpu.launch<threads = 384, registers = 169, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C2) expected 255 registers, or a multiple of 8 between 24 and 248, got 256}}
func.func private @launch_c2_many() attributes {a = #moa_gpu.launch<threads = 384, registers = 256, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C1) expected 'moa_gpu.launch' to be a #moa_gpu.launch on a function with a body, got 3 : i64}}
llvm.func @dialect_c1_value() attributes {moa_gpu.launch = 3} {
  llvm.return
}

// -----

// expected-error @+1 {{(C1) expected 'moa_gpu.launch' to be a #moa_gpu.launch on a function with a body}}
llvm.func @dialect_c1_body() attributes {moa_gpu.launch = #moa_gpu.launch<threads = 384, registers = 168, rows = 0, keys = 0>}

// -----

// expected-error @+1 {{(C1) expected 'moa_gpu.launch' to be a #moa_gpu.launch on a function with a body}}
module attributes {moa_gpu.launch = #moa_gpu.launch<threads = 384, registers = 168, rows = 0, keys = 0>} {}
