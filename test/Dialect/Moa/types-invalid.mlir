// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C1) expected positive sizes, got 0x64}}
func.func private @c1(!moa.cache<0x64xf32>)

// -----

// expected-error @+1 {{(C2) expected element type f32, f16 or bf16, got 'f64'}}
func.func private @c2(!moa.cache<3x64xf64>)

// -----

// expected-error @+1 {{expected KV heads x head size, got 3 sizes}}
func.func private @sizes(!moa.cache<2x3x64xf32>)

// -----

// expected-error @+1 {{expected static shape}}
func.func private @dynamic(!moa.cache<?x64xf32>)
