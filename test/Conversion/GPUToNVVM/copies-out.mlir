// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse | FileCheck %s --implicit-check-not=moa_gpu.

// Matrix stores spread a fragment over a tile with the 128-byte swizzle, then the
// copy engine takes panel by panel.

!t = !moa_gpu.shared<128x128xbf16>

// CHECK-LABEL: llvm.func @out
// CHECK-SAME: %[[MAP:[a-z0-9]+]]: !llvm.ptr, %[[ROW:[a-z0-9]+]]: i32, %[[HEAD:[a-z0-9]+]]: i32,
llvm.func @out(%map: !llvm.ptr, %row: i32, %head: i32, %f: vector<32xi32>) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 168, rows = 0, keys = 0>} {
  // CHECK-DAG: %[[SHARED:.*]] = llvm.mlir.addressof @shared
  %t = moa_gpu.shared : !t
  // Row: the argument's, 16 a warp, and one a lane of the first 16.
  // CHECK: %[[TID:.*]] = nvvm.read.ptx.sreg.tid.x
  // CHECK-NEXT: %[[LANE:.*]] = arith.andi %[[TID]], %c31_i32
  // CHECK: %[[WARP:.*]] = arith.andi %{{.*}}, %c3_i32
  // CHECK-NEXT: %[[OF:.*]] = arith.shli %[[WARP]], %c4_i32
  // CHECK-NEXT: %[[R:.*]] = arith.addi %[[ROW]], %[[OF]]
  // CHECK-NEXT: %[[L:.*]] = arith.andi %[[LANE]], %c15_i32
  // CHECK-NEXT: %[[R2:.*]] = arith.addi %[[R]], %[[L]]
  // CHECK-NEXT: %[[BYTES:.*]] = arith.shli %[[R2]], %c7_i32
  // CHECK-NEXT: %[[BASE:.*]] = llvm.getelementptr %[[SHARED]][%[[BYTES]]]
  // CHECK-NEXT: %[[SWIZZLE:.*]] = arith.andi %[[LANE]], %c7_i32
  // CHECK-NEXT: %[[HALF:.*]] = arith.shrui %[[LANE]], %c4_i32
  // CHECK-NEXT: %[[CHUNK:.*]] = arith.xori %[[HALF]], %[[SWIZZLE]]
  // CHECK-NEXT: %[[C:.*]] = arith.shli %[[CHUNK]], %c4_i32
  // CHECK-NEXT: %[[PLACE:.*]] = llvm.getelementptr %[[BASE]][%[[C]]]
  // CHECK: nvvm.stmatrix %[[PLACE]], %[[F:.*]]#0, %[[F]]#1, %[[F]]#2, %[[F]]#3
  // CHECK-COUNT-3: nvvm.stmatrix
  // The second panel, 128 rows of 128 bytes behind.
  // CHECK: %[[SECOND:.*]] = llvm.getelementptr %[[PLACE]][16384]
  // CHECK-NEXT: nvvm.stmatrix %[[SECOND]], %[[F]]#16,
  // CHECK-COUNT-3: nvvm.stmatrix
  // CHECK-NOT: nvvm.stmatrix
  // CHECK: nvvm.fence.proxy {kind = #nvvm.proxy_kind<async.shared>, space = #nvvm.shared_space<cta>}
  moa_gpu.stage %f, %t[%row] : vector<32xi32>, !t
  // CHECK: %[[FIRST:.*]] = arith.andi %[[TID]], %c127_i32
  // CHECK-NEXT: %[[ONE:.*]] = arith.cmpi eq, %[[FIRST]], %c0_i32
  // CHECK-NEXT: scf.if %[[ONE]] {
  moa_gpu.one_thread {
    // CHECK: %[[FROM:.*]] = llvm.getelementptr %[[SHARED]][%{{.*}}]
    // CHECK-NEXT: nvvm.cp.async.bulk.tensor.global.shared.cta %[[MAP]], %[[FROM]], box[%c0_i32, %[[ROW]], %[[HEAD]]]
    // CHECK-NEXT: %[[FROM2:.*]] = llvm.getelementptr %[[FROM]][16384]
    // CHECK-NEXT: nvvm.cp.async.bulk.tensor.global.shared.cta %[[MAP]], %[[FROM2]], box[%c64_i32, %[[ROW]], %[[HEAD]]]
    // CHECK-NEXT: nvvm.cp.async.bulk.commit.group
    moa_gpu.copy_out %t[%row] to %map[%row, %head] : !t, !llvm.ptr
    // CHECK-NEXT: nvvm.cp.async.bulk.wait_group 0 {read}
    moa_gpu.copy_out_wait
  }
  llvm.return
}
