// RUN: moa-opt %s --convert-moa-to-tile | FileCheck %s
// RUN: moa-opt %s --convert-moa-to-tile --moa-split-tile-loops --moa-verify-tile-form --convert-moa-tile-to-cpu | FileCheck %s --check-prefix=CPU

// Head size, element type and group make a kernel of their own; layouts stay with
// the launch; what a kernel is made of is what the lowering to a CPU takes.

#layout = #moa.cache_layout<page = 64, page_bytes = 20480, deciding = [[1], [2]]>

// CHECK-LABEL: func.func @layer_7
// CHECK: moa.launch @prefill_d80_bf16({{.*}}) {layout = #layout}
// CHECK: moa.launch @decode_d80_g2_bf16({{.*}}) {layout = #layout, scale = -1.000000e+00 : f32}
func.func @layer_7(%q: tensor<?x4x80xbf16>, %p: tensor<1x4x80xbf16>, %c: !moa.cache<2x80xbf16>) -> (tensor<?x4x80xbf16>, tensor<1x4x80xbf16>) attributes {moa.layer = 7 : i64} {
  %o = moa.attention %q, %c layout(#layout) tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x80xbf16>, !moa.cache<2x80xbf16>
  %d = moa.decode %p, %c scale(-1.0) layout(#layout) tile(<lanes = dims, rows = 2, keys = 64>) : tensor<1x4x80xbf16>, !moa.cache<2x80xbf16>
  return %o, %d : tensor<?x4x80xbf16>, tensor<1x4x80xbf16>
}

// Another group is another decode kernel; the append kernel knows no group.
// CHECK-LABEL: func.func @layer_2
// CHECK: moa.launch @append_d80_bf16(
// CHECK: moa.launch @decode_d80_g1_bf16(
// CHECK: moa.launch @prefill_d256_f16(
func.func @layer_2(%k: tensor<1x2x80xbf16>, %p: tensor<1x2x80xbf16>, %c: !moa.cache<2x80xbf16>, %q: tensor<?x1x256xf16>, %e: !moa.cache<1x256xf16>) -> (tensor<1x2x80xbf16>, tensor<?x1x256xf16>) attributes {moa.layer = 2 : i64} {
  %n = moa.cache_append %k, %k, %c : tensor<1x2x80xbf16>, !moa.cache<2x80xbf16>
  %d = moa.decode %p, %n tile(<lanes = dims, rows = 1, keys = 64>) : tensor<1x2x80xbf16>, !moa.cache<2x80xbf16>
  %o = moa.attention %q, %e tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x1x256xf16>, !moa.cache<1x256xf16>
  return %d, %o : tensor<1x2x80xbf16>, tensor<?x1x256xf16>
}

// CHECK-LABEL: func.func @no_attention
// CHECK-NEXT: return
func.func @no_attention() {
  return
}

// CHECK: module @prefill_d80_bf16
// CHECK: moa_tile.load_queries %{{.*}} : <prefill> -> <64x80xf32>
// CHECK: moa_tile.load_keys %{{.*}} : <prefill> -> <64x80xbf16>
// CHECK: moa_tile.store {{.*}} as bf16
// CHECK: module @decode_d80_g2_bf16
// CHECK-SAME: group = 2, dtype = bf16, layers = [7]>
// CHECK: moa_tile.load_values %{{.*}} : <decode> -> <64x80xbf16>
// CHECK: module @append_d80_bf16
// CHECK-SAME: layers = [2]>
// CHECK: moa_tile.copy_rows %{{.*}} dims 80 of bf16
// CHECK: module @decode_d80_g1_bf16
// CHECK: moa_tile.init : <1x80>
// CHECK: module @prefill_d256_f16
// CHECK: moa_tile.store {{.*}} as f16
// CHECK-NOT: module

// CPU: func.func @prefill_d80_bf16(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CPU: func.func @decode_d80_g2_bf16(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CPU: func.func @append_d80_bf16(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CPU: func.func @decode_d80_g1_bf16(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CPU: func.func @prefill_d256_f16(%{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CPU-NOT: moa_tile.
