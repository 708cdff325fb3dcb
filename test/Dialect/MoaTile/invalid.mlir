// RUN: moa-opt %s --split-input-file --verify-diagnostics

func.func @load_queries_c1(%i: !moa_tile.item<append>) {
  // expected-error @+1 {{(C1) expected an item of kind prefill or decode, got append}}
  %q = moa_tile.load_queries %i : !moa_tile.item<append> -> !moa_tile.tile<64x64xf32>
  return
}

// -----

func.func @for_blocks_c1_arguments(%i: !moa_tile.item<prefill>, %s: !moa_tile.state<64x64>) {
  // expected-error @+1 {{(C1) expected body arguments (index, '!moa_tile.state<64x64>'), got 'i64', '!moa_tile.state<64x64>'}}
  %r = moa_tile.for_blocks all %i, %s : !moa_tile.item<prefill>, !moa_tile.state<64x64> {
  ^bb0(%b: i64, %t: !moa_tile.state<64x64>):
    moa_tile.yield %t : !moa_tile.state<64x64>
  }
  return
}

// -----

func.func @for_blocks_c1_yield(%i: !moa_tile.item<prefill>, %s: !moa_tile.state<64x64>, %o: !moa_tile.state<64x80>) {
  // expected-error @+1 {{(C1) expected the body to end in a yield of '!moa_tile.state<64x64>'}}
  %r = moa_tile.for_blocks all %i, %s : !moa_tile.item<prefill>, !moa_tile.state<64x64> {
  ^bb0(%b: index, %t: !moa_tile.state<64x64>):
    moa_tile.yield %o : !moa_tile.state<64x80>
  }
  return
}

// -----

func.func @for_blocks_c2(%i: !moa_tile.item<append>, %s: !moa_tile.state<64x64>) {
  // expected-error @+1 {{(C2) expected an item of kind prefill or decode, got append}}
  %r = moa_tile.for_blocks all %i, %s : !moa_tile.item<append>, !moa_tile.state<64x64> {
  ^bb0(%b: index, %t: !moa_tile.state<64x64>):
    moa_tile.yield %t : !moa_tile.state<64x64>
  }
  return
}

// -----

func.func @load_keys_c1(%i: !moa_tile.item<append>, %b: index) {
  // expected-error @+1 {{(C1) expected an item of kind prefill or decode, got append}}
  %k = moa_tile.load_keys %i[%b] : !moa_tile.item<append> -> !moa_tile.tile<64x64xf32>
  return
}

// -----

func.func @load_values_c2(%i: !moa_tile.item<decode>, %b: index) {
  // expected-error @+1 {{(C2) expected a tile of 64 or 128 rows, got 32}}
  %v = moa_tile.load_values %i[%b] : !moa_tile.item<decode> -> !moa_tile.tile<32x64xf32>
  return
}

// -----

func.func @scores_c1(%q: !moa_tile.tile<3x64xf32>, %k: !moa_tile.tile<64x80xf32>) {
  // expected-error @+1 {{(C1) expected queries and keys of one head size, got 64 and 80}}
  %s = moa_tile.scores %q, %k : !moa_tile.tile<3x64xf32>, !moa_tile.tile<64x80xf32> -> !moa_tile.tile<3x64xf32>
  return
}

// -----

func.func @scores_c2(%q: !moa_tile.tile<3x80xf32>, %k: !moa_tile.tile<64x80xf32>) {
  // expected-error @+1 {{(C2) expected scores of 3x64xf32, got '!moa_tile.tile<3x80xf32>'}}
  %s = moa_tile.scores %q, %k : !moa_tile.tile<3x80xf32>, !moa_tile.tile<64x80xf32> -> !moa_tile.tile<3x80xf32>
  return
}

// -----

func.func @mask_c2(%s: !moa_tile.tile<3x64xf16>, %i: !moa_tile.item<decode>, %b: index) {
  // expected-error @+1 {{(C2) expected f32 scores, got '!moa_tile.tile<3x64xf16>'}}
  %m = moa_tile.mask (sink) %s, %i[%b] : !moa_tile.tile<3x64xf16>, !moa_tile.item<decode>
  return
}

// -----

func.func @softmax_step_c1(%x: !moa_tile.tile<4x64xf32>, %s: !moa_tile.state<3x64>) {
  // expected-error @+1 {{(C1) expected scores and probabilities of 3 rows and equal columns}}
  %p, %t = moa_tile.softmax_step %x, %s : !moa_tile.tile<4x64xf32>, !moa_tile.state<3x64> -> !moa_tile.tile<4x64xf32>
  return
}

// -----

func.func @accumulate_c1(%p: !moa_tile.tile<3x32xf32>, %v: !moa_tile.tile<64x64xf32>, %s: !moa_tile.state<3x64>) {
  // expected-error @+1 {{(C1) expected probabilities of 3x64, got '!moa_tile.tile<3x32xf32>'}}
  %t = moa_tile.accumulate %p, %v, %s : !moa_tile.tile<3x32xf32>, !moa_tile.tile<64x64xf32>, !moa_tile.state<3x64>
  return
}

// -----

func.func @accumulate_c2(%p: !moa_tile.tile<3x64xf32>, %v: !moa_tile.tile<64x80xf32>, %s: !moa_tile.state<3x64>) {
  // expected-error @+1 {{(C2) expected values of 64 columns, got 80}}
  %t = moa_tile.accumulate %p, %v, %s : !moa_tile.tile<3x64xf32>, !moa_tile.tile<64x80xf32>, !moa_tile.state<3x64>
  return
}

// -----

func.func @store_c1(%s: !moa_tile.state<3x64>, %i: !moa_tile.item<decode>) {
  // expected-error @+1 {{(C1) expected an item of kind prefill, got decode}}
  moa_tile.store %s, %i as f32 : !moa_tile.state<3x64>, !moa_tile.item<decode>
  return
}

// -----

func.func @store_c2(%s: !moa_tile.state<64x64>, %i: !moa_tile.item<prefill>) {
  // expected-error @+1 {{(C2) expected type f32, f16 or bf16, got 'f64'}}
  moa_tile.store %s, %i as f64 : !moa_tile.state<64x64>, !moa_tile.item<prefill>
  return
}

// -----

func.func @store_partial_c1(%s: !moa_tile.state<64x64>, %i: !moa_tile.item<prefill>) {
  // expected-error @+1 {{(C1) expected an item of kind decode, got prefill}}
  moa_tile.store_partial %s, %i : !moa_tile.state<64x64>, !moa_tile.item<prefill>
  return
}

// -----

func.func @copy_rows_c1(%i: !moa_tile.item<decode>) {
  // expected-error @+1 {{(C1) expected an item of kind append, got decode}}
  moa_tile.copy_rows %i dims 64 of f32 : !moa_tile.item<decode>
  return
}

// -----

func.func @copy_rows_c2(%i: !moa_tile.item<append>) {
  // expected-error @+1 {{(C2) expected a positive dims, got -4}}
  moa_tile.copy_rows %i dims -4 of f32 : !moa_tile.item<append>
  return
}

// -----

func.func @load_keys_c2(%i: !moa_tile.item<prefill>, %b: index) {
  // expected-error @+1 {{(C2) expected a tile of 64 or 128 rows, got 192}}
  %k = moa_tile.load_keys %i[%b] : !moa_tile.item<prefill> -> !moa_tile.tile<192x64xf32>
  return
}

// -----

func.func @load_values_c1(%i: !moa_tile.item<append>, %b: index) {
  // expected-error @+1 {{(C1) expected an item of kind prefill or decode, got append}}
  %v = moa_tile.load_values %i[%b] : !moa_tile.item<append> -> !moa_tile.tile<64x64xf32>
  return
}

// -----

func.func @for_blocks_c1_no_yield(%i: !moa_tile.item<prefill>, %s: !moa_tile.state<64x64>) {
  // expected-error @+1 {{(C1) expected the body to end in a yield of '!moa_tile.state<64x64>'}}
  %r = moa_tile.for_blocks all %i, %s : !moa_tile.item<prefill>, !moa_tile.state<64x64> {
  ^bb0(%b: index, %t: !moa_tile.state<64x64>):
    llvm.unreachable
  }
  return
}

// -----

func.func @yield_elsewhere(%s: !moa_tile.state<64x64>) {
  // expected-error @+1 {{expects parent op 'moa_tile.for_blocks'}}
  moa_tile.yield %s : !moa_tile.state<64x64>
}
