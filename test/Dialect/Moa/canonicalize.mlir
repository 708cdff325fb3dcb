// RUN: moa-opt %s --canonicalize | FileCheck %s

// Rules that reach N at every length are dense, and then equal to each other.
// CHECK: #[[WINDOW:.+]] = #moa.window<[3 x (0 + 1.000000e+00 * N), (-64 + 1.000000e+00 * N)],

// CHECK-LABEL: @dense_rules
func.func @dense_rules(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) -> tensor<?x4x64xf32> {
  // CHECK: moa.attention {{.*}} window(#[[WINDOW]])
  %o = moa.attention %q, %c window(<[(1024 + 1.0 * N), (0 + 1.0 * N), (1 + 1.0 * N), (-64 + 1.0 * N)], sink = 64, block = 64, min = 128, length = request>) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return %o : tensor<?x4x64xf32>
}

// CHECK-LABEL: @decode
func.func @decode(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) -> tensor<1x4x64xf32> {
  // CHECK: moa.decode {{.*}} window(#[[WINDOW]])
  %o = moa.decode %q, %c window(<[3 x (7 + 1.0 * N), (-64 + 1.0 * N)], sink = 64, block = 64, min = 128, length = request>) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return %o : tensor<1x4x64xf32>
}

// A dead attention goes away: nothing here has an effect.
// CHECK-LABEL: @dead
func.func @dead(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // CHECK-NOT: moa.decode
  %o = moa.decode %q, %c : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return
}
