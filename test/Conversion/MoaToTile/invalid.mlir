// RUN: moa-opt %s --convert-moa-to-tile --split-input-file --verify-diagnostics

func.func @no_choice(%q: tensor<?x3x64xf32>, %c: !moa.cache<3x64xf32>) -> tensor<?x3x64xf32> attributes {moa.layer = 0 : i64} {
  // expected-error @+2 {{expected a tile choice}}
  // expected-note @+1 {{moa-select-tile-config makes it}}
  %o = moa.attention %q, %c : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  return %o : tensor<?x3x64xf32>
}

// -----

func.func @no_layer(%q: tensor<?x3x64xf32>, %c: !moa.cache<3x64xf32>) -> tensor<?x3x64xf32> {
  // expected-error @+1 {{expected to be in a function with attribute 'moa.layer'}}
  %o = moa.attention %q, %c tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  return %o : tensor<?x3x64xf32>
}

// -----

func.func @head_size(%q: tensor<?x3x72xf32>, %c: !moa.cache<3x72xf32>) -> tensor<?x3x72xf32> attributes {moa.layer = 0 : i64} {
  // expected-error @+1 {{cannot become a kernel: head size 72 has no kernel; expected 64, 80, 96, 128, 192 or 256}}
  %o = moa.attention %q, %c tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x3x72xf32>, !moa.cache<3x72xf32>
  return %o : tensor<?x3x72xf32>
}

// -----

func.func @choices_differ(%q: tensor<?x3x64xf32>, %c: !moa.cache<3x64xf32>) -> (tensor<?x3x64xf32>, tensor<?x3x64xf32>) attributes {moa.layer = 0 : i64} {
  %o = moa.attention %q, %c tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  // expected-error @+1 {{expected the tile choice of the other operations that become 'prefill_d64_f32'}}
  %p = moa.attention %q, %c tile(<lanes = rows, rows = 32, keys = 64>) : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  return %o, %p : tensor<?x3x64xf32>, tensor<?x3x64xf32>
}

// -----

func.func @append_no_layer(%k: tensor<?x3x64xf32>, %c: !moa.cache<3x64xf32>) -> !moa.cache<3x64xf32> {
  // expected-error @+1 {{expected to be in a function with attribute 'moa.layer'}}
  %o = moa.cache_append %k, %k, %c : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  return %o : !moa.cache<3x64xf32>
}

// -----

func.func @append_head_size(%k: tensor<?x3x32xbf16>, %c: !moa.cache<3x32xbf16>) -> !moa.cache<3x32xbf16> attributes {moa.layer = 0 : i64} {
  // expected-error @+1 {{cannot become a kernel: head size 32 has no kernel; expected 64, 80, 96, 128, 192 or 256}}
  %o = moa.cache_append %k, %k, %c : tensor<?x3x32xbf16>, !moa.cache<3x32xbf16>
  return %o : !moa.cache<3x32xbf16>
}

// -----

func.func @decode_no_choice(%q: tensor<1x3x64xf32>, %c: !moa.cache<3x64xf32>) -> tensor<1x3x64xf32> attributes {moa.layer = 0 : i64} {
  // expected-error @+2 {{expected a tile choice}}
  // expected-note @+1 {{moa-select-tile-config makes it}}
  %o = moa.decode %q, %c : tensor<1x3x64xf32>, !moa.cache<3x64xf32>
  return %o : tensor<1x3x64xf32>
}

// -----

// Layers share kernels, so that their choices must agree, too.
func.func @layer_0(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) -> tensor<1x4x64xf32> attributes {moa.layer = 0 : i64} {
  %o = moa.decode %q, %c tile(<lanes = dims, rows = 2, keys = 64>) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return %o : tensor<1x4x64xf32>
}
func.func @layer_1(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) -> tensor<1x4x64xf32> attributes {moa.layer = 1 : i64} {
  // expected-error @+1 {{expected the tile choice of the other operations that become 'decode_d64_g2_f32', #moa_tile.config<lanes = dims, rows = 2, keys = 64>, got #moa_tile.config<lanes = rows, rows = 2, keys = 64>}}
  %o = moa.decode %q, %c tile(<lanes = rows, rows = 2, keys = 64>) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return %o : tensor<1x4x64xf32>
}
