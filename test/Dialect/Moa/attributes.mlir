// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

// Windows, models and layouts print as aliases, ahead of everything.
// CHECK-DAG: #[[W0:window[0-9]*]] = #moa.window<[3 x (128), (256), 2 x (128)], sink = 64, block = 64, min = 128, length = request>
// CHECK-DAG: #[[W1:window[0-9]*]] = #moa.window<[(N)], sink = 0, block = 1, min = 1, length = row>
// CHECK-DAG: #[[W2:window[0-9]*]] = #moa.window<[65536 x (0)], sink = 1048575, block = 1048576, min = 1048576, length = row>
// CHECK-DAG: #[[M:model[0-9]*]] = #moa.model<layers = 1, q_heads = 16, kv_heads = 1, head_dim = 192, dtype = bf16, max_length = 1>
// CHECK-DAG: #[[L0:layout[0-9]*]] = #moa.cache_layout<page = 64, page_bytes = 16384, deciding = {{\[}}[0, 2], [3]]>
// CHECK-DAG: #[[L1:layout[0-9]*]] = #moa.cache_layout<page = 64, page_bytes = 16384, deciding = {{\[}}[0], [1]], pages = [4, 32]>

// Rules: constant, growing, both; doubles keep every bit.
// CHECK-LABEL: @spans
func.func private @spans() attributes {
  // CHECK-SAME: a0 = #moa.span<512>
  a0 = #moa.span<512 + 0.0 * N>,
  // CHECK-SAME: a1 = #moa.span<-512 + 0.75 * N>
  a1 = #moa.span<-512 + 0.75 * N>,
  // CHECK-SAME: a2 = #moa.span<0.1 * N>
  a2 = #moa.span<0.1 * N>,
  // CHECK-SAME: a3 = #moa.span<0.3333333333333333 * N>
  a3 = #moa.span<0.3333333333333333 * N>,
  // CHECK-SAME: a4 = #moa.span<-1099511627776 + 0.{{0+}}5 * N>
  a4 = #moa.span<-1099511627776 + 4.9406564584124654e-324 * N>,
  // CHECK-SAME: a5 = #moa.span<1099511627776 + N>
  a5 = #moa.span<1099511627776 + 1.0 * N>,
  // CHECK-SAME: a6 = #moa.span<N>
  a6 = #moa.span<0 + 1.0 * N>,
  // CHECK-SAME: a7 = #moa.span<-5>
  a7 = #moa.span<-5>,
  // CHECK-SAME: a8 = #moa.span<0>
  a8 = #moa.span<0.0 * N>
}

// Runs of equal neighbours are written once, however they were read.
// CHECK-LABEL: @windows
func.func private @windows() attributes {
  // CHECK-SAME: a0 = #[[W0]]
  a0 = #moa.window<[(128), 2 x (128), (256), (128), (128)], sink = 64, block = 64, min = 128, length = request>,
  // CHECK-SAME: a1 = #[[W1]]
  a1 = #moa.window<[(N)], sink = 0, block = 1, min = 1, length = row>,
  // CHECK-SAME: a2 = #[[W2]]
  a2 = #moa.window<[65536 x (0)], sink = 1048575, block = 1048576, min = 1048576, length = row>
}

// Keys of a struct come in any order and print in one.
// CHECK-LABEL: @model
// CHECK-SAME: a = #[[M]]
func.func private @model() attributes {
  a = #moa.model<max_length = 1, head_dim = 192, dtype = bf16, kv_heads = 1, q_heads = 16, layers = 1>
}

// CHECK-LABEL: @layouts
// CHECK-SAME: a0 = #[[L0]], a1 = #[[L1]]
func.func private @layouts() attributes {
  a0 = #moa.cache_layout<page = 64, page_bytes = 16384, deciding = [[0, 2], [3]]>,
  a1 = #moa.cache_layout<page = 64, page_bytes = 16384, deciding = [[0], [1]], pages = [4, 32]>
}

// CHECK-LABEL: @choices
// CHECK-SAME: a0 = #moa.tile_config<lanes = rows, rows = 64, keys = 64>
// CHECK-SAME: a1 = #moa.tile_config<lanes = dims, rows = 1, keys = 64>
// CHECK-SAME: a2 = #moa.kernel<kind = decode, head_dim = 80, group = 16, dtype = f16, layers = [0, 5]>
func.func private @choices() attributes {
  a0 = #moa.tile_config<lanes = rows, rows = 64, keys = 64>,
  a1 = #moa.tile_config<lanes = dims, rows = 1, keys = 64>,
  a2 = #moa.kernel<kind = decode, head_dim = 80, group = 16, dtype = f16, layers = [0, 5]>
}
