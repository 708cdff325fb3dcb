// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

// CHECK-DAG: #[[W0:window[0-9]*]] = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [2 x e4m3]>
// CHECK-DAG: #[[W1:window[0-9]*]] = #moa.window<[6 x (128)], sink = 0, block = 64, min = 128, length = row, kv = [model, 2 x int8]>
// CHECK-DAG: #[[W2:window[0-9]*]] = #moa.window<[(N)], sink = 64, block = 64, min = 128, length = request, kv = [int8]>

// Runs of equal neighbours are written once, however they were read.
// CHECK-LABEL: @formats
func.func private @formats() attributes {
  // CHECK-SAME: a0 = #[[W0]]
  a0 = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [e4m3, 1 x e4m3]>,
  // CHECK-SAME: a1 = #[[W1]]
  a1 = #moa.window<[6 x (128)], sink = 0, block = 64, min = 128, length = row, kv = [model, int8, int8]>,
  // CHECK-SAME: a2 = #[[W2]]
  a2 = #moa.window<[(N)], sink = 64, block = 64, min = 128, length = request, kv = [int8]>
}

// CHECK-LABEL: @kernels
func.func private @kernels() attributes {
  // CHECK-SAME: a0 = #moa.kernel<kind = decode, head_dim = 64, group = 2, dtype = bf16, layers = [0], kv8 = true>
  a0 = #moa.kernel<kind = decode, head_dim = 64, group = 2, dtype = bf16, layers = [0], kv8 = true>,
  // CHECK-SAME: a1 = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = bf16, layers = [0]>
  a1 = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = bf16, layers = [0], kv8 = false>,
  // CHECK-SAME: a2 = #moa.kernel<kind = quantise, head_dim = 64, group = 1, dtype = f16, layers = [0]>
  a2 = #moa.kernel<kind = quantise, head_dim = 64, group = 1, dtype = f16, layers = [0]>
}

// CHECK-LABEL: @attends
func.func @attends(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<?x4x64xbf16> {
  // CHECK: moa.attention %{{.*}}, %{{.*}} window(#[[W0]])
  %o = moa.attention %q, %c window(<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [2 x e4m3]>) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<?x4x64xbf16>
}
