// RUN: moa-opt %s | moa-opt | FileCheck %s

// A soft cap of scores: of an operation, of the model, of a kernel.

// CHECK: #[[MODEL:.*]] = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 64, soft_cap = 5.000000e+01 : f32>
// CHECK: module attributes {moa.model = #[[MODEL]]}
module attributes {moa.model = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 64, dtype = f32, max_length = 64, soft_cap = 50.0 : f32>} {
  // CHECK: module @kernel attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0], soft_cap = 5.000000e+01 : f32>}
  module @kernel attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = f32, layers = [0], soft_cap = 50.0 : f32>} {}
  // CHECK-LABEL: func.func @capped
  func.func @capped(%q: tensor<?x4x64xf32>, %p: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) -> (tensor<?x4x64xf32>, tensor<1x4x64xf32>) {
    // CHECK: moa.attention %{{.*}}, %{{.*}} scale(1.250000e-01) soft_cap(5.000000e+01) : tensor
    %o = moa.attention %q, %c scale(0.125) soft_cap(50.0) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
    // CHECK: moa.decode %{{.*}}, %{{.*}} soft_cap(5.000000e-01) : tensor
    %d = moa.decode %p, %c soft_cap(0.5) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
    return %o, %d : tensor<?x4x64xf32>, tensor<1x4x64xf32>
  }
}
