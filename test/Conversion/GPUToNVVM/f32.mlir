// Tiles of f32: panels of 32 columns, operands of products of tf32.
// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse | FileCheck %s --implicit-check-not=moa_gpu
// RUN: moa-opt %s --moa-tile-to-gpu | mlir-translate --mlir-to-llvmir | llc -mtriple=nvptx64-nvidia-cuda -mcpu=sm_80 -mattr=+ptx80 | FileCheck %s --check-prefix=PTX

!tile = !moa_gpu.shared<32x96xf32>
!two = !moa_gpu.buffers<2 x !tile>

// Two tiles of three panels of 4 KiB.
// CHECK-LABEL: llvm.func @products(
// CHECK-SAME: %[[OUT:[a-z0-9]*]]: !llvm.ptr<1>, %{{.*}}: i64, %[[N:[a-z0-9]*]]: i32, %{{.*}}: i1, %[[SUMS:[a-z0-9]*]]: vector<4xf32>)
// CHECK-SAME: moa.shared_bytes = 24576 : i64
llvm.func @products(%p: !llvm.ptr<1>, %stride: i64, %n: i32, %c: i1, %sums: vector<4xf32>) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 128, rows = 128, keys = 64>, nvvm.kernel} {
  %b = moa_gpu.buffers : !two
  %use = arith.constant 1 : i32
  // Columns 64 to 79 are four chunks of the third panel, 8 KiB on; 256 threads
  // take all 32 rows.
  // CHECK: scf.if
  // CHECK: nvvm.cp.async.shared.global
  // CHECK: llvm.getelementptr %{{.*}}[4096]
  // CHECK: nvvm.cp.async.shared.global
  // CHECK: arith.cmpi slt, %{{.*}}, %c4_i32
  // CHECK: scf.if
  // CHECK: llvm.getelementptr %{{.*}}[8192]
  // CHECK: nvvm.cp.async.shared.global
  // CHECK-NOT: nvvm.cp.async.shared.global
  // CHECK: nvvm.cp.async.commit.group
  moa_gpu.fetch %p stride %stride rows %n to %n columns 80 into %b[%use] if %c : !two
  // CHECK: nvvm.barrier0
  %t = moa_gpu.await %b[%use] pending 0 : !two -> !tile
  moa_gpu.fetch %p stride %stride rows %n to %n columns 80 into %b[%n] if %c : !two
  // Eight columns are two chunks: 40 begins with chunk 2 of the second panel. As
  // a left operand matrix 1 is 8 rows below matrix 0.
  // CHECK: %[[LANE:.*]] = arith.andi %{{.*}}, %c31_i32
  // CHECK: %[[EIGHT:.*]] = arith.shrui %[[LANE]], %c3_i32
  // CHECK: %[[BIT0:.*]] = arith.andi %[[EIGHT]], %c1_i32
  // CHECK: %[[BIT1:.*]] = arith.shrui %[[LANE]], %c4_i32
  // CHECK: %[[LOW:.*]] = arith.andi %[[LANE]], %c7_i32
  // CHECK: arith.shli %[[BIT0]], %c3_i32
  // CHECK: %[[CHUNK:.*]] = arith.addi %[[BIT1]], %c2_i32
  // CHECK: arith.xori %[[CHUNK]], %[[LOW]]
  // CHECK: arith.addi %{{.*}}, %c4096_i32
  // CHECK: nvvm.ldmatrix %{{.*}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<row>, num = 4
  %left = moa_gpu.load_matrix %t[%n, 40] : !tile
  // As right operands it is one chunk on.
  // CHECK: arith.shli %[[BIT1]], %c3_i32
  // CHECK: %[[CHUNK:.*]] = arith.addi %[[BIT0]], %c2_i32
  // CHECK: arith.xori %[[CHUNK]], %[[LOW]]
  // CHECK: nvvm.ldmatrix
  %right = moa_gpu.load_matrix %t[%n, 40] right : !tile
  // Rows 2 l and 2 l + 1, column g: chunk g / 4 of the third panel, then those
  // of the 8 columns behind them.
  // CHECK: %[[PAIR:.*]] = arith.shli %{{.*}}, %c1_i32
  // CHECK: %[[COLUMN:.*]] = arith.shrui %[[LANE]], %c2_i32
  // CHECK: %[[OWN:.*]] = arith.shrui %[[COLUMN]], %c2_i32
  // CHECK: arith.xori %[[OWN]], %[[PAIR]]
  // CHECK: llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<3> -> f32
  // CHECK: %[[ODD:.*]] = arith.addi %[[PAIR]], %c1_i32
  // CHECK: arith.xori %[[OWN]], %[[ODD]]
  // CHECK: llvm.load %{{.*}} -> f32
  // CHECK: %[[NEXT:.*]] = arith.addi %[[OWN]], %c2_i32
  // CHECK: arith.xori %[[NEXT]], %[[PAIR]]
  // CHECK: llvm.load %{{.*}} -> f32
  // CHECK: arith.xori %[[NEXT]], %[[ODD]]
  // CHECK: llvm.load %{{.*}} -> f32
  // PTX-COUNT-4: ld.shared.b32
  %values = moa_gpu.load_right %t[%n, 64] : !tile
  // The big part loses 13 bits, the small one is exact.
  // CHECK: %[[BIG:.*]] = arith.andi %{{.*}}, %c-8192_i32
  // CHECK-NEXT: %[[F:.*]] = arith.bitcast %[[BIG]] : i32 to f32
  // CHECK-NEXT: arith.subf %{{.*}}, %[[F]] : f32
  // PTX: and.b32 %{{.*}}, %{{.*}}, -8192;
  // PTX: sub.rn.f32
  %big, %small = moa_gpu.split %values : vector<4xf32> -> vector<4xi32>, vector<4xi32>
  %0 = vector.extract_strided_slice %big {offsets = [0], sizes = [2], strides = [1]} : vector<4xi32> to vector<2xi32>
  %1 = vector.extract_strided_slice %small {offsets = [2], sizes = [2], strides = [1]} : vector<4xi32> to vector<2xi32>
  %2 = vector.extract_strided_slice %right {offsets = [2], sizes = [2], strides = [1]} : vector<4xi32> to vector<2xi32>
  // CHECK-COUNT-3: nvvm.mma.sync {{.*}}multiplicandAPtxType = #nvvm.mma_type<tf32>{{.*}}shape = #nvvm.shape<m = 16, n = 8, k = 8>} : (i32, i32, f32)
  // PTX-COUNT-3: mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
  %s0 = moa_gpu.multiply %left, %0, %sums as tf32
  %s1 = moa_gpu.multiply %left, %1, %s0 as tf32
  %s2 = moa_gpu.multiply %left, %2, %s1 as tf32
  llvm.store %s2, %p : vector<4xf32>, !llvm.ptr<1>
  llvm.return
}
