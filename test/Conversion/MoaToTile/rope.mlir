// RUN: moa-opt %s --convert-moa-to-tile | FileCheck %s

// Rotations of one structure share a kernel; its name says layout and elements.

// CHECK-LABEL: func.func @first
// CHECK: moa.launch @rope_d64_half32_f32(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) : ({{.*}}) -> (tensor<?x4x64xf32>, !moa.cache<2x64xf32>)
func.func @first(%q: tensor<?x4x64xf32>, %k: tensor<?x2x64xf32>, %c: !moa.cache<2x64xf32>) -> tensor<?x4x64xf32> attributes {moa.layer = 0 : i64} {
  %r, %d = moa.rope_append %q, %k, %k, %c rope(<half, 32>) : tensor<?x4x64xf32>, tensor<?x2x64xf32>, !moa.cache<2x64xf32>
  return %r : tensor<?x4x64xf32>
}

// CHECK-LABEL: func.func @second
// CHECK: moa.launch @rope_d64_half32_f32(
func.func @second(%q: tensor<?x2x64xf32>, %k: tensor<?x2x64xf32>, %c: !moa.cache<2x64xf32>) -> tensor<?x2x64xf32> attributes {moa.layer = 1 : i64} {
  %r, %d = moa.rope_append %q, %k, %k, %c rope(<half, 32>) : tensor<?x2x64xf32>, tensor<?x2x64xf32>, !moa.cache<2x64xf32>
  return %r : tensor<?x2x64xf32>
}

// CHECK: module @rope_d64_half32_f32 attributes {moa.kernel = #moa.kernel<kind = rope, head_dim = 64, group = 1, dtype = f32, layers = [0, 1], rope = <half, 32>>}
// CHECK: moa_tile.rotate_rows %{{.*}} dims 64 of f32 rope(<half, 32>) : <rope>
