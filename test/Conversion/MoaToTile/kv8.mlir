// RUN: moa-opt %s --moa-to-tile | FileCheck %s

// Layers with KV heads of 8 bits share kernels that take such blocks, whatever
// the formats, and one that makes them; other layers have their own.

#e4m3 = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request, kv = [model, e4m3]>
#int8 = #moa.window<[4 x (128)], sink = 64, block = 64, min = 128, length = request, kv = [2 x int8]>
#model = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request>

// CHECK-LABEL: func.func @first
// CHECK: moa.launch @decode_d64_g2_bf16_kv8(
func.func @first(%q: tensor<1x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<1x4x64xbf16> attributes {moa.layer = 0 : i64} {
  %o = moa.decode %q, %c window(#e4m3) : tensor<1x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<1x4x64xbf16>
}

// CHECK-LABEL: func.func @second
// CHECK: moa.launch @decode_d64_g2_bf16(
func.func @second(%q: tensor<1x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<1x4x64xbf16> attributes {moa.layer = 1 : i64} {
  %o = moa.decode %q, %c window(#model) : tensor<1x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<1x4x64xbf16>
}

// CHECK-LABEL: func.func @third
// CHECK: moa.launch @decode_d64_g2_bf16_kv8(
func.func @third(%q: tensor<1x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<1x4x64xbf16> attributes {moa.layer = 2 : i64} {
  %o = moa.decode %q, %c window(#int8) : tensor<1x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<1x4x64xbf16>
}

// CHECK: module @decode_d64_g2_bf16_kv8 attributes {moa.kernel = #moa.kernel<kind = decode, head_dim = 64, group = 2, dtype = bf16, layers = [0, 2], kv8 = true>}
// CHECK-COUNT-4: moa_tile.load_values %{{.*}}[%{{.*}}] kv8 : <decode> -> <64x64xbf16>
// CHECK: module @quantise_d64_bf16 attributes {moa.kernel = #moa.kernel<kind = quantise, head_dim = 64, group = 1, dtype = bf16, layers = [0, 2]>}
// CHECK: moa_tile.quantise_rows %{{.*}} dims 64 of bf16 : <quantise>
// CHECK: module @decode_d64_g2_bf16 attributes {moa.kernel = #moa.kernel<kind = decode, head_dim = 64, group = 2, dtype = bf16, layers = [1]>}
// CHECK-NOT: kv8
