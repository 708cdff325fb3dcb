// RUN: moa-opt %s --moa-to-tile | FileCheck %s

// A cap is part of a kernel's structure: layers share kernels where theirs is
// the same, and it stands between scores and mask.

#window = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request>

// CHECK-LABEL: func.func @first
// CHECK: moa.launch @prefill_d64_bf16_cap50(
func.func @first(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<?x4x64xbf16> attributes {moa.layer = 0 : i64} {
  %o = moa.attention %q, %c window(#window) soft_cap(50.0) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<?x4x64xbf16>
}

// CHECK-LABEL: func.func @second
// CHECK: moa.launch @prefill_d64_bf16_cap0p25(
func.func @second(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<?x4x64xbf16> attributes {moa.layer = 1 : i64} {
  %o = moa.attention %q, %c window(#window) soft_cap(0.25) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<?x4x64xbf16>
}

// CHECK-LABEL: func.func @third
// CHECK: moa.launch @prefill_d64_bf16(
func.func @third(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<?x4x64xbf16> attributes {moa.layer = 2 : i64} {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<?x4x64xbf16>
}

// CHECK-LABEL: func.func @fourth
// CHECK: moa.launch @prefill_d64_bf16_cap50(
func.func @fourth(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<?x4x64xbf16> attributes {moa.layer = 3 : i64} {
  %o = moa.attention %q, %c window(#window) soft_cap(50.0) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<?x4x64xbf16>
}

// CHECK: module @prefill_d64_bf16_cap50 attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = bf16, layers = [0, 3], soft_cap = 5.000000e+01 : f32>}
// CHECK: moa_tile.for_blocks sink
// CHECK: %[[S:.*]] = moa_tile.scores
// CHECK-NEXT: %[[C:.*]] = moa_tile.soft_cap %[[S]] to 5.000000e+01 : <64x64xf32>
// CHECK-NEXT: %[[M:.*]] = moa_tile.mask (sink) %[[C]]
// CHECK-NEXT: moa_tile.softmax_step %[[M]]
// In a segment without a mask too.
// CHECK: moa_tile.for_blocks full
// CHECK: %[[S:.*]] = moa_tile.scores
// CHECK-NEXT: %[[C:.*]] = moa_tile.soft_cap %[[S]] to 5.000000e+01
// CHECK-NEXT: moa_tile.softmax_step %[[C]]
// CHECK: module @prefill_d64_bf16_cap0p25
// CHECK: moa_tile.soft_cap %{{.*}} to 2.500000e-01
// CHECK: module @prefill_d64_bf16 attributes {moa.kernel = #moa.kernel<kind = prefill, head_dim = 64, group = 1, dtype = bf16, layers = [2]>}
// CHECK-NOT: soft_cap
