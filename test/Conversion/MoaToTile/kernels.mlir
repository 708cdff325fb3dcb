// RUN: moa-opt %s --convert-moa-to-tile | FileCheck %s

!cache = !moa.cache<3x64xf32>
!rows = tensor<?x9x64xf32>
!kv = tensor<?x3x64xf32>

// CHECK-LABEL: func.func @layer_0
func.func @layer_0(%q: !rows, %k: !kv, %v: !kv, %cache: !cache) -> (!rows, !cache) attributes {moa.layer = 0 : i64} {
  // CHECK: %[[C:.*]] = moa.launch @append_d64_f32(%{{.*}}, %{{.*}}, %{{.*}}) :
  // CHECK: moa.launch @prefill_d64_f32(%{{.*}}, %[[C]]) {scale = 5.000000e-01 : f32}
  %c = moa.cache_append %k, %v, %cache : !kv, !cache
  %o = moa.attention %q, %c scale(0.5) tile(<lanes = rows, rows = 64, keys = 64>) : !rows, !cache
  return %o, %c : !rows, !cache
}

// CHECK-LABEL: func.func @layer_3
func.func @layer_3(%q: tensor<1x9x64xf32>, %p: !rows, %cache: !cache) -> (tensor<1x9x64xf32>, !rows) attributes {moa.layer = 3 : i64} {
  // CHECK: moa.launch @decode_d64_g3_f32(
  // Another window, the same kernel.
  // CHECK: moa.launch @prefill_d64_f32({{.*}}) {window = #window}
  %d = moa.decode %q, %cache tile(<lanes = dims, rows = 3, keys = 64>) : tensor<1x9x64xf32>, !cache
  %o = moa.attention %p, %cache window(<[9 x (256)], sink = 64, block = 64, min = 128, length = request>) tile(<lanes = rows, rows = 64, keys = 64>) : !rows, !cache
  return %d, %o : tensor<1x9x64xf32>, !rows
}

// CHECK-LABEL: module @append_d64_f32
// CHECK-SAME: moa.kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0]>
// CHECK: moa_tile.copy_rows %{{.*}} dims 64 of f32

// CHECK-LABEL: module @prefill_d64_f32
// CHECK-SAME: moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0, 3]>
// CHECK: func.func @prefill_d64_f32(%{{.*}}: !moa_tile.item<prefill>)
// CHECK-SAME: lanes = rows, rows = 64, keys = 64
// CHECK: moa_tile.load_queries
// CHECK: moa_tile.for_blocks all
// CHECK: moa_tile.load_keys
// CHECK: moa_tile.scores
// CHECK: moa_tile.mask (sink, window, causal)
// CHECK: moa_tile.softmax_step
// CHECK: moa_tile.load_values
// CHECK: moa_tile.accumulate {{.*}} skip_zero
// CHECK: moa_tile.store {{.*}} as f32

// CHECK-LABEL: module @decode_d64_g3_f32
// CHECK-SAME: group = 3, dtype = f32, layers = [3]>
// CHECK: moa_tile.load_queries %{{.*}} : <decode> -> <3x64xf32>
// CHECK: moa_tile.store_partial
// CHECK-NOT: module
