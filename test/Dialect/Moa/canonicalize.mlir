// RUN: moa-opt %s --canonicalize | FileCheck %s

!cache = !moa.cache<2x64xf32>
!rows = tensor<?x4x64xf32>

// Rules that mean the same at every length are written alike: dense ones, and
// constants by the span they give (minimum 128, rounded up to 64). Rules below
// full growth stay, even where the minimum decides at short lengths.
// CHECK-DAG: #[[DENSE:window[0-9]*]] = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request>
// CHECK-DAG: #[[CONST:window[0-9]*]] = #moa.window<[2 x (128), (576), (512)], sink = 64, block = 64, min = 128, length = row>
// CHECK-DAG: #[[NEIGHBOURS:window[0-9]*]] = #moa.window<[3 x (N), (-64 + N)], sink = 64, block = 64, min = 128, length = request>
// CHECK-DAG: #[[KEPT:window[0-9]*]] = #moa.window<[(-1 + N), (100 + 0.5 * N), (128), (N)], sink = 0, block = 128, min = 1, length = request>

// CHECK-LABEL: func.func @dense
func.func @dense(%q: !rows, %c: !cache) -> !rows {
  // CHECK: moa.attention %{{.*}} window(#[[DENSE]]) scale(2.500000e-01) :
  %o = moa.attention %q, %c window(<[(N), (7 + 1.0 * N), (1099511627776), (1073741824 + 0.5 * N)], sink = 64, block = 64, min = 128, length = request>) scale(0.25) : !rows, !cache
  return %o : !rows
}

// CHECK-LABEL: func.func @constant
func.func @constant(%q: tensor<1x4x64xf32>, %c: !cache) -> tensor<1x4x64xf32> {
  // CHECK: moa.decode %{{.*}} window(#[[CONST]]) :
  %o = moa.decode %q, %c window(<[(-5), (128), (513), (512)], sink = 64, block = 64, min = 128, length = row>) : tensor<1x4x64xf32>, !cache
  return %o : tensor<1x4x64xf32>
}

// CHECK-LABEL: func.func @kept
func.func @kept(%q: !rows, %c: !cache) -> !rows {
  // CHECK: moa.attention %{{.*}} window(#[[KEPT]]) :
  %o = moa.attention %q, %c window(<[(-1 + 1.0 * N), (100 + 0.5 * N), (1), (1073741823)], sink = 0, block = 128, min = 1, length = request>) : !rows, !cache
  return %o : !rows
}

// CHECK-LABEL: func.func @append_nothing
// CHECK-SAME: %[[Q:.*]]: tensor<?x4x64xf32>, %[[K:.*]]: tensor<0x2x64xf32>, %[[C:.*]]: !moa.cache
func.func @append_nothing(%q: !rows, %k: tensor<0x2x64xf32>, %c: !cache) -> (!rows, !cache) {
  // CHECK-NOT: moa.cache_append
  // CHECK: %[[O:.*]] = moa.attention %[[Q]], %[[C]] :
  %d = moa.cache_append %k, %k, %c : tensor<0x2x64xf32>, !cache
  %o = moa.attention %q, %d : !rows, !cache
  // CHECK: return %[[O]], %[[C]]
  return %o, %d : !rows, !cache
}

// CHECK-LABEL: func.func @unused
func.func @unused(%q: !rows, %k: tensor<?x2x64xf32>, %c: !cache) {
  // CHECK-NEXT: return
  %d = moa.cache_append %k, %k, %c : tensor<?x2x64xf32>, !cache
  %o = moa.attention %q, %d : !rows, !cache
  return
}

// CHECK-LABEL: func.func @neighbours
func.func @neighbours(%q: tensor<1x4x64xf32>, %c: !cache) -> tensor<1x4x64xf32> {
  // CHECK: moa.decode %{{.*}} window(#[[NEIGHBOURS]]) :
  %o = moa.decode %q, %c window(<[(1024 + 1.0 * N), (N), (1 + 1.0 * N), (-64 + 1.0 * N)], sink = 64, block = 64, min = 128, length = request>) : tensor<1x4x64xf32>, !cache
  return %o : tensor<1x4x64xf32>
}
