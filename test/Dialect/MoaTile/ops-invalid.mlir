// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Attributes of operations; invalid.mlir has their shapes and items.

func.func @copy_rows_c2_type(%i: !moa_tile.item<append>) {
  // expected-error @+1 {{(C2) expected type f32, f16 or bf16, got 'i8'}}
  moa_tile.copy_rows %i dims 64 of i8 : !moa_tile.item<append>
  return
}

// -----

func.func @copy_rows_c2_zero(%i: !moa_tile.item<append>) {
  // expected-error @+1 {{(C2) expected a positive dims, got 0}}
  moa_tile.copy_rows %i dims 0 of f32 : !moa_tile.item<append>
  return
}

// -----

// No text says an empty set of mask classes.
func.func @mask_c1(%s: !moa_tile.tile<3x64xf32>, %i: !moa_tile.item<decode>, %b: index) {
  // expected-error @+2 {{expected valid keyword or string}}
  // expected-error @+1 {{failed to parse MoaTile_MaskClassAttr parameter 'value'}}
  %m = moa_tile.mask () %s, %i[%b] : !moa_tile.tile<3x64xf32>, !moa_tile.item<decode>
  return
}

// -----

func.func @mask_class(%s: !moa_tile.tile<3x64xf32>, %i: !moa_tile.item<decode>, %b: index) {
  // expected-error @+2 {{expected ::moa::tile::MaskClass to be one of: sink, window, causal}}
  // expected-error @+1 {{failed to parse MoaTile_MaskClassAttr parameter 'value'}}
  %m = moa_tile.mask (left) %s, %i[%b] : !moa_tile.tile<3x64xf32>, !moa_tile.item<decode>
  return
}

// -----

func.func @segment(%i: !moa_tile.item<prefill>, %s: !moa_tile.state<64x64>) {
  // expected-error @+2 {{expected ::moa::tile::Segment to be one of: all, sink, edge, full, diagonal}}
  // expected-error @+1 {{failed to parse MoaTile_SegmentAttr parameter 'value'}}
  %r = moa_tile.for_blocks left %i, %s : !moa_tile.item<prefill>, !moa_tile.state<64x64> {
  ^bb0(%b: index, %t: !moa_tile.state<64x64>):
    moa_tile.yield %t : !moa_tile.state<64x64>
  }
  return
}

// -----

func.func @scores_c2_element(%q: !moa_tile.tile<3x64xf32>, %k: !moa_tile.tile<64x64xf16>) {
  // expected-error @+1 {{(C2) expected scores of 3x64xf32, got '!moa_tile.tile<3x64xf16>'}}
  %s = moa_tile.scores %q, %k : !moa_tile.tile<3x64xf32>, !moa_tile.tile<64x64xf16> -> !moa_tile.tile<3x64xf16>
  return
}

// -----

func.func @softmax_step_c1_columns(%x: !moa_tile.tile<3x64xf32>, %s: !moa_tile.state<3x64>) {
  // expected-error @+1 {{(C1) expected scores and probabilities of 3 rows and equal columns, got '!moa_tile.tile<3x64xf32>' and '!moa_tile.tile<3x32xf32>'}}
  %p, %t = moa_tile.softmax_step %x, %s : !moa_tile.tile<3x64xf32>, !moa_tile.state<3x64> -> !moa_tile.tile<3x32xf32>
  return
}

// -----

func.func @accumulate_c1_rows(%p: !moa_tile.tile<4x64xf32>, %v: !moa_tile.tile<64x64xf32>, %s: !moa_tile.state<3x64>) {
  // expected-error @+1 {{(C1) expected probabilities of 3x64, got '!moa_tile.tile<4x64xf32>'}}
  %t = moa_tile.accumulate %p, %v, %s : !moa_tile.tile<4x64xf32>, !moa_tile.tile<64x64xf32>, !moa_tile.state<3x64>
  return
}

// -----

func.func @rotate_rows_c1(%i: !moa_tile.item<append>) {
  // expected-error @+1 {{(C1) expected an item of kind rope, got append}}
  moa_tile.rotate_rows %i dims 64 of f32 rope(<half, 64>) : !moa_tile.item<append>
  return
}

// -----

func.func @rotate_rows_c2(%i: !moa_tile.item<rope>) {
  // expected-error @+1 {{(C2) expected type f32, f16 or bf16, got 'i8'}}
  moa_tile.rotate_rows %i dims 64 of i8 rope(<half, 64>) : !moa_tile.item<rope>
  return
}

// -----

func.func @rotate_rows_c3(%i: !moa_tile.item<rope>) {
  // expected-error @+1 {{(C3) expected to rotate at most 64 elements, got #moa_tile.rope<half, 80>}}
  moa_tile.rotate_rows %i dims 64 of f32 rope(<half, 80>) : !moa_tile.item<rope>
  return
}

// -----

// expected-error @+1 {{(C1) expected an even rotary_dim of at least 2, got 0}}
func.func private @rope_c1() attributes {a = #moa_tile.rope<half, 0>}

// -----

func.func @soft_cap_c1(%s: !moa_tile.tile<3x64xbf16>) {
  // expected-error @+1 {{(C1) expected f32 scores, got '!moa_tile.tile<3x64xbf16>'}}
  %c = moa_tile.soft_cap %s to 50.0 : !moa_tile.tile<3x64xbf16>
  return
}

// -----

func.func @soft_cap_c2_zero(%s: !moa_tile.tile<3x64xf32>) {
  // expected-error @+1 {{(C2) expected a positive and finite cap, got 0.000000e+00 : f32}}
  %c = moa_tile.soft_cap %s to 0.0 : !moa_tile.tile<3x64xf32>
  return
}

// -----

func.func @soft_cap_c2_infinite(%s: !moa_tile.tile<3x64xf32>) {
  // expected-error @+1 {{(C2) expected a positive and finite cap, got 0x7F800000 : f32}}
  %c = moa_tile.soft_cap %s to 0x7F800000 : !moa_tile.tile<3x64xf32>
  return
}
