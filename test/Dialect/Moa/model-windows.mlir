// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --canonicalize | FileCheck %s --check-prefix=CANON
// RUN: moa-opt %s --moa-resolve-spans=length=1000 | FileCheck %s --check-prefix=RESOLVED

// A layer whose model has a window of its own: no span exceeds it.
// CHECK: #[[W:window[0-9]*]] = #moa.window<[(N), (900), 2 x (64 + 0.25 * N)] most 300, sink = 0, block = 64, min = 128, length = request, kv = [int8, model]>
// The constant is what it gives under the bound.
// CANON: #moa.window<[(N), (300), 2 x (64 + 0.25 * N)] most 300, sink = 0,
// RESOLVED: #moa.window<[4 x (300)] most 300, sink = 0,

!cache = !moa.cache<2x64xbf16>
!rows = tensor<?x4x64xbf16>

// CHECK-LABEL: func.func @layer
func.func @layer(%q: !rows, %c: !cache) -> !rows {
  // CHECK: moa.attention %{{.*}} window(#[[W]])
  %o = moa.attention %q, %c window(<[(N), (900), 2 x (64 + 0.25 * N)] most 300, sink = 0, block = 64, min = 128, length = request, kv = [int8, model]>) : !rows, !cache
  return %o : !rows
}
