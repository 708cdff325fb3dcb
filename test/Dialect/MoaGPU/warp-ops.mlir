// Operations of single warps: printed as parsed.
// RUN: moa-opt %s | moa-opt | FileCheck %s

!tile = !moa_gpu.shared<128x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>

// CHECK-LABEL: llvm.func @roles(
llvm.func @roles(%map: !llvm.ptr, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  // CHECK: %[[RING:.*]] = moa_gpu.ring readers = 2
  %ring = moa_gpu.ring readers = 2 : !ring
  // CHECK: moa_gpu.scratch 48 : <3>
  %scratch = moa_gpu.scratch 48 : <3>
  %zero = arith.constant 0 : i32
  // CHECK: moa_gpu.warp_roles consumers = 2 producer {
  moa_gpu.warp_roles consumers = 2 producer {
    moa_gpu.put %ring[%n] : !ring {
    ^bb0(%tile: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%zero, %zero, %n] to %tile[0, 0], %full : !llvm.ptr, !tile
      moa_gpu.copy_in %map[%zero, %zero, %n] to %tile[1, 0], %full : !llvm.ptr, !tile
    }
  } consumer {
  // CHECK: ^bb0(%{{.*}}: i32):
  ^bb0(%warp: i32):
    %tile = moa_gpu.get %ring[%n] : !ring -> !tile
    // CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 48] : <128x64xbf16>
    %a = moa_gpu.load_matrix %tile[%warp, 48] : !tile
    // CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 0] transposed : <128x64xbf16>
    %b = moa_gpu.load_matrix %tile[%warp, 0] transposed : !tile
    // CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 16] right : <128x64xbf16>
    %c = moa_gpu.load_matrix %tile[%warp, 16] right : !tile
    // CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 32] transposed right : <128x64xbf16>
    %d = moa_gpu.load_matrix %tile[%warp, 32] transposed right : !tile
    // CHECK: moa_gpu.store_piece %{{.*}}, %{{.*}}[%{{.*}}, %{{.*}}] : <128x64xbf16>
    moa_gpu.store_piece %a, %tile[%warp, %n] : !tile
    // CHECK: moa_gpu.seal
    moa_gpu.seal
    moa_gpu.barrier sync %n, 64
    // CHECK: moa_gpu.release %[[RING]]
    moa_gpu.release %ring[%n] : !ring
  }
  llvm.return
}

// Without roles every warp computes; what a warp's number decides all its lanes
// do alike.
// CHECK-LABEL: llvm.func @no_roles(
llvm.func @no_roles(%a: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 1, keys = 64>} {
  %tile = moa_gpu.shared : !moa_gpu.shared<64x64xbf16>
  // CHECK: moa_gpu.warp
  %warp = moa_gpu.warp
  %first = arith.cmpi slt, %warp, %n : i32
  // CHECK: scf.if
  scf.if %first {
    // CHECK: moa_gpu.store_piece
    moa_gpu.store_piece %a, %tile[%n, %n] : !moa_gpu.shared<64x64xbf16>
    // CHECK: moa_gpu.seal
    moa_gpu.seal
  }
  llvm.return
}

// CHECK-LABEL: func.func @fragments(
func.func @fragments(%a: vector<4xi32>, %b: vector<2xi32>, %s: vector<4xf32>,
                     %pair: vector<2xf32>, %x: i32, %scale: f32, %c: i1,
                     %counter: !llvm.ptr<1>) {
  // CHECK: moa_gpu.lane_count %{{.*}}
  %n = moa_gpu.lane_count %c
  // CHECK: moa_gpu.wait_launches
  moa_gpu.wait_launches
  // CHECK: moa_gpu.launch_next
  scf.if %c {
    moa_gpu.launch_next
  }
  // CHECK: moa_gpu.opaque %{{.*}}
  %y = moa_gpu.opaque %x
  // CHECK: moa_gpu.multiply %{{.*}}, %{{.*}}, %{{.*}} as f16
  %p = moa_gpu.multiply %a, %b, %s as f16
  // CHECK: moa_gpu.mask_columns %{{.*}}, key %{{.*}} starts %{{.*}}, %{{.*}} ends %{{.*}}, %{{.*}} sink %{{.*}}
  %m = moa_gpu.mask_columns %p, key %x starts %x, %n ends %n, %x sink %x
  // CHECK: moa_gpu.row_reduce max %{{.*}} by_column : vector<4xf32>
  %h = moa_gpu.row_reduce max %m by_column : vector<4xf32>
  // CHECK: moa_gpu.lane_reduce max %{{.*}} by_column
  %l = moa_gpu.lane_reduce max %h by_column
  // CHECK: moa_gpu.exp2 %{{.*}} * %{{.*}} - %{{.*}} by_column : vector<4xf32>
  %e = moa_gpu.exp2 %m * %scale - %l by_column : vector<4xf32>
  // CHECK: moa_gpu.row_scale %{{.*}}, %{{.*}} by_column : vector<4xf32>
  %r = moa_gpu.row_scale %e, %pair by_column : vector<4xf32>
  // CHECK: moa_gpu.transpose %{{.*}} : vector<2xi32>
  %t = moa_gpu.transpose %b : vector<2xi32>
  // CHECK: moa_gpu.count_arrival %{{.*}} : <1>
  %found = moa_gpu.count_arrival %counter : <1>
  return
}

// CHECK-LABEL: func.func @f32(
func.func @f32(%tile: !moa_gpu.shared<64x96xf32>, %row: i32, %right: vector<2xi32>, %s: vector<4xf32>) {
  // CHECK: moa_gpu.load_matrix %{{.*}}[%{{.*}}, 88] : <64x96xf32>
  %q = moa_gpu.load_matrix %tile[%row, 88] : !moa_gpu.shared<64x96xf32>
  // CHECK: moa_gpu.load_right %{{.*}}[%{{.*}}, 80] : <64x96xf32>
  %v = moa_gpu.load_right %tile[%row, 80] : !moa_gpu.shared<64x96xf32>
  // CHECK: %{{.*}}, %{{.*}} = moa_gpu.split %{{.*}} : vector<4xf32> -> vector<4xi32>, vector<4xi32>
  %big, %small = moa_gpu.split %v : vector<4xf32> -> vector<4xi32>, vector<4xi32>
  // CHECK: moa_gpu.multiply %{{.*}}, %{{.*}}, %{{.*}} as tf32
  %p = moa_gpu.multiply %q, %right, %s as tf32
  return
}
