// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

!cache = !moa.cache<3x64xf32>
!rows = tensor<?x9x64xf32>
!kv = tensor<?x3x64xf32>
!row = tensor<1x9x64xf32>

// A layer prints on a screen: windows, models and layouts are aliases.
// CHECK-DAG: #[[MODEL:model[0-9]*]] = #moa.model<layers = 2, q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f32, max_length = 8192>
// CHECK-DAG: #[[W:window[0-9]*]] = #moa.window<[3 x (-512 + N), 6 x (256)], sink = 64, block = 64, min = 128, length = request>
// CHECK-DAG: #[[L:layout[0-9]*]] = #moa.cache_layout<page = 64, page_bytes = 32768, deciding = {{\[}}[0], [3], [6, 8]]>
#window = #moa.window<[3 x (-512 + 1.0 * N), 6 x (256)], sink = 64, block = 64, min = 128, length = request>
#layout = #moa.cache_layout<page = 64, page_bytes = 32768, deciding = [[0], [3], [6, 8]]>

// CHECK: module attributes {moa.model = #[[MODEL]], moa.plan_id = "00112233
module attributes {
    moa.model = #moa.model<layers = 2, q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f32, max_length = 8192>,
    moa.plan_id = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"} {

  // CHECK-LABEL: func.func @layer_0_prefill
  // CHECK-SAME: attributes {moa.layer = 0 : i64}
  func.func @layer_0_prefill(%q: !rows, %k: !kv, %v: !kv, %cache: !cache) -> (!rows, !cache) attributes {moa.layer = 0 : i64} {
    // CHECK: %[[C:.*]] = moa.cache_append %{{.*}}, %{{.*}}, %{{.*}} : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
    %c = moa.cache_append %k, %v, %cache : !kv, !cache
    // CHECK: moa.attention %{{.*}}, %[[C]] window(#[[W]]) scale(1.250000e-01) layout(#[[L]]) tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
    %o = moa.attention %q, %c window(#window) scale(0.125) layout(#layout) tile(<lanes = rows, rows = 64, keys = 64>) : !rows, !cache
    return %o, %c : !rows, !cache
  }

  // CHECK-LABEL: func.func @layer_0_decode
  func.func @layer_0_decode(%q: !row, %cache: !cache) -> !row attributes {moa.layer = 0 : i64} {
    // CHECK: moa.decode %{{.*}}, %{{.*}} window(#[[W]]) tile(<lanes = dims, rows = 3, keys = 64>) : tensor<1x9x64xf32>, !moa.cache<3x64xf32>
    %o = moa.decode %q, %cache window(#window) tile(<lanes = dims, rows = 3, keys = 64>) : !row, !cache
    return %o : !row
  }

  // Before a plan is applied nothing but operands is needed; other attributes
  // stay.
  // CHECK-LABEL: func.func @bare
  func.func @bare(%q: !rows, %p: !row, %cache: !cache) -> (!rows, !row) {
    // CHECK: moa.attention %{{.*}}, %{{.*}} {note = "kept"} : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
    %o = moa.attention %q, %cache {note = "kept"} : !rows, !cache
    // CHECK: moa.decode %{{.*}}, %{{.*}} : tensor<1x9x64xf32>, !moa.cache<3x64xf32>
    %d = moa.decode %p, %cache : !row, !cache
    return %o, %d : !rows, !row
  }

  // CHECK-LABEL: func.func @layer_1_prefill
  func.func @layer_1_prefill(%q: !rows, %k: !kv, %cache: !cache) -> !rows attributes {moa.layer = 1 : i64} {
    // CHECK: %[[C:.*]] = moa.launch @append_d64_f32(%{{.*}}, %{{.*}}, %{{.*}}) : (tensor<?x3x64xf32>, tensor<?x3x64xf32>, !moa.cache<3x64xf32>) -> !moa.cache<3x64xf32>
    %c = moa.launch @append_d64_f32(%k, %k, %cache) : (!kv, !kv, !cache) -> !cache
    // CHECK: moa.launch @prefill_d64_f32(%{{.*}}, %[[C]]) {layout = #[[L]], scale = 2.500000e-01 : f32, window = #[[W]]}
    %o = moa.launch @prefill_d64_f32(%q, %c) {window = #window, layout = #layout, scale = 0.25 : f32} : (!rows, !cache) -> !rows
    return %o : !rows
  }
  // CHECK: module @append_d64_f32 attributes {moa.kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0, 1]>}
  module @append_d64_f32 attributes {moa.kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0, 1]>} {}
  module @prefill_d64_f32 attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [1]>} {}
}

// Group sizes at both ends, and every element type.
// CHECK-LABEL: func.func @groups
func.func @groups(%a: tensor<?x16x80xf16>, %b: !moa.cache<1x80xf16>, %c: tensor<7x4x128xbf16>, %d: !moa.cache<4x128xbf16>) -> (tensor<?x16x80xf16>, tensor<7x4x128xbf16>) {
  // CHECK: moa.attention %{{.*}} : tensor<?x16x80xf16>, !moa.cache<1x80xf16>
  %x = moa.attention %a, %b : tensor<?x16x80xf16>, !moa.cache<1x80xf16>
  // CHECK: moa.attention %{{.*}} : tensor<7x4x128xbf16>, !moa.cache<4x128xbf16>
  %y = moa.attention %c, %d : tensor<7x4x128xbf16>, !moa.cache<4x128xbf16>
  return %x, %y : tensor<?x16x80xf16>, tensor<7x4x128xbf16>
}

// CHECK-LABEL: func.func @rope
func.func @rope(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %c: !moa.cache<3x64xf32>) -> tensor<?x9x64xf32> {
  // CHECK: moa.rope_append %{{.*}}, %{{.*}}, %{{.*}}, %{{.*}} rope(<interleaved, 32>) : tensor<?x9x64xf32>, tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  %r, %d = moa.rope_append %q, %k, %k, %c rope(<interleaved, 32>) : tensor<?x9x64xf32>, tensor<?x3x64xf32>, !moa.cache<3x64xf32>
  return %r : tensor<?x9x64xf32>
}
