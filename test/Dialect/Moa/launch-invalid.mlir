// RUN: moa-opt %s --split-input-file --verify-diagnostics

func.func @c1_absent(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{'moa.launch' op (C1) expected a kernel module named 'missing'}}
  %o = moa.launch @missing(%q, %c) : (tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> tensor<?x4x64xf32>
  return
}

// -----

func.func @c1_no_kernel(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C1) expected 'plain' to have attribute 'moa.kernel'}}
  %o = moa.launch @plain(%q, %c) : (tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> tensor<?x4x64xf32>
  return
}
module @plain {}

// -----

func.func @c2_count(%q: tensor<?x4x64xf32>) {
  // expected-error @+1 {{(C2) expected operands and results of a kernel #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0]>, got ('tensor<?x4x64xf32>') -> ('tensor<?x4x64xf32>')}}
  %o = moa.launch @k(%q) : (tensor<?x4x64xf32>) -> tensor<?x4x64xf32>
  return
}
// expected-note @+1 {{the kernel is here}}
module @k attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0]>} {}

// -----

func.func @c2_head_dim(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected operands and results of a kernel #moa.kernel<kind = prefill, head_dim = 128}}
  %o = moa.launch @k(%q, %c) : (tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> tensor<?x4x64xf32>
  return
}
// expected-note @+1 {{the kernel is here}}
module @k attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 128, group = 1, dtype = f32, layers = [0]>} {}

// -----

func.func @c2_result(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected operands and results of a kernel}}
  %o = moa.launch @k(%q, %c) : (tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> !moa.cache<2x64xf32>
  return
}
// expected-note @+1 {{the kernel is here}}
module @k attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0]>} {}

// -----

func.func @c2_group(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected operands and results of a kernel #moa.kernel<kind = decode, head_dim = 64, group = 4}}
  %o = moa.launch @k(%q, %c) : (tensor<1x4x64xf32>, !moa.cache<2x64xf32>) -> tensor<1x4x64xf32>
  return
}
// expected-note @+1 {{the kernel is here}}
module @k attributes {moa.kernel = #moa.kernel<kind = decode, head_dim = 64, group = 4, dtype = f32, layers = [0]>} {}

// -----

func.func @c2_values(%k: tensor<?x2x64xf32>, %v: tensor<?x1x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected operands and results of a kernel #moa.kernel<kind = append}}
  %o = moa.launch @k(%k, %v, %c) : (tensor<?x2x64xf32>, tensor<?x1x64xf32>, !moa.cache<2x64xf32>) -> !moa.cache<2x64xf32>
  return
}
// expected-note @+1 {{the kernel is here}}
module @k attributes {moa.kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0]>} {}

// -----

func.func @c3(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C3) expected one span per query head (4), got 3}}
  %o = moa.launch @k(%q, %c) {window = #moa.window<[3 x (256)], sink = 64, block = 64, min = 128, length = request>} : (tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> tensor<?x4x64xf32>
  return
}
module @k attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0]>} {}

// -----

func.func @c3_append(%k: tensor<?x2x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C3) expected no window on a launch of a kernel of kind append, got #moa.window<[2 x (256)]}}
  %o = moa.launch @k(%k, %k, %c) {window = #moa.window<[2 x (256)], sink = 64, block = 64, min = 128, length = request>} : (tensor<?x2x64xf32>, tensor<?x2x64xf32>, !moa.cache<2x64xf32>) -> !moa.cache<2x64xf32>
  return
}
module @k attributes {moa.kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0]>} {}

// -----

func.func @c4(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) attributes {moa.layer = 1 : i64} {
  // expected-error @+1 {{(C4) expected layer 1 among the layers of 'k', array<i64: 0, 2>}}
  %o = moa.launch @k(%q, %c) : (tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> tensor<?x4x64xf32>
  return
}
module @k attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0, 2]>} {}

// -----

func.func @c2_rope(%q: tensor<?x4x64xf32>, %k: tensor<?x2x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected operands and results of a kernel #moa.kernel<kind = rope}}
  %r, %d = moa.launch @k(%q, %k, %q, %c) : (tensor<?x4x64xf32>, tensor<?x2x64xf32>, tensor<?x4x64xf32>, !moa.cache<2x64xf32>) -> (tensor<?x4x64xf32>, !moa.cache<2x64xf32>)
  return
}
// expected-note @+1 {{the kernel is here}}
module @k attributes {moa.kernel = #moa.kernel<kind = rope, head_dim = 64, group = 1, dtype = f32, layers = [0], rope = <half, 64>>} {}
