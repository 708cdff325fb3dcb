// RUN: moa-opt %s --moa-to-tile="plan=%plans/smollm2-moa.json" | FileCheck %s
// RUN: moa-opt %s --moa-to-tile="plan=%plans/smollm2-moa.json length=2048 lint" 2>&1 | FileCheck %s --check-prefix=KNOWN

// The milestone between the levels: launches of kernels that layers share, with
// the plan's windows, and kernels whose loops are split.

// CHECK: #[[LAYOUT:.*]] = #moa.cache_layout<page = 64, page_bytes = 32768
// CHECK-DAG: #[[WINDOW0:.*]] = #moa.window<[6 x (N), 3 x (-512 + N)]
// CHECK-DAG: #[[WINDOW2:.*]] = #moa.window<[3 x (-512 + N), 6 x (N)]
// CHECK: moa.plan_id = "{{[0-9a-f]+}}"
// CHECK-LABEL: func.func @layer_0_prefill
// CHECK: moa.launch @append_d64_f32
// CHECK: moa.launch @prefill_d64_f32
// CHECK-SAME: layout = #[[LAYOUT]], window = #[[WINDOW0]]
// CHECK-LABEL: func.func @layer_2_decode
// CHECK: moa.launch @append_d64_f32
// CHECK: moa.launch @decode_d64_g3_f32
// CHECK-SAME: window = #[[WINDOW2]]
// CHECK: module @append_d64_f32 attributes {moa.kernel = #moa.kernel<kind = append, head_dim = 64, group = 1, dtype = f32, layers = [0, 2]>}
// CHECK: module @prefill_d64_f32 attributes {moa.kernel = #moa.kernel<kind = prefill, {{.*}}layers = [0]>}
// CHECK: moa_tile.for_blocks sink
// CHECK: moa_tile.for_blocks edge
// CHECK: moa_tile.for_blocks full
// CHECK-NOT: moa_tile.mask
// CHECK: moa_tile.for_blocks diagonal
// CHECK: moa_tile.mask
// CHECK: module @decode_d64_g3_f32
// CHECK-NOT: moa_tile.for_blocks all

// KNOWN: remark:
// KNOWN: #moa.window<[6 x (2048), 3 x (1536)]

module attributes {moa.model = #moa.model<layers = 30, q_heads = 9, kv_heads = 3, head_dim = 64, dtype = f32, max_length = 8192>} {
  func.func @layer_0_prefill(%q: tensor<?x9x64xf32>, %k: tensor<?x3x64xf32>, %v: tensor<?x3x64xf32>, %cache: !moa.cache<3x64xf32>) -> (tensor<?x9x64xf32>, !moa.cache<3x64xf32>) attributes {moa.layer = 0 : i64} {
    %c = moa.cache_append %k, %v, %cache : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
    %o = moa.attention %q, %c : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
    return %o, %c : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
  }
  func.func @layer_2_decode(%q: tensor<1x9x64xf32>, %k: tensor<1x3x64xf32>, %v: tensor<1x3x64xf32>, %cache: !moa.cache<3x64xf32>) -> (tensor<1x9x64xf32>, !moa.cache<3x64xf32>) attributes {moa.layer = 2 : i64} {
    %c = moa.cache_append %k, %v, %cache : tensor<1x3x64xf32>, !moa.cache<3x64xf32>
    %o = moa.decode %q, %c : tensor<1x9x64xf32>, !moa.cache<3x64xf32>
    return %o, %c : tensor<1x9x64xf32>, !moa.cache<3x64xf32>
  }
}
