// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --split-input-file | FileCheck %s --implicit-check-not=moa_gpu.

// A thread holds rows r and r + 8; of each 8 columns two: elements 0 and 1 are of
// the first row, 2 and 3 of the second, 4 is 8 columns on.

// CHECK-LABEL: llvm.func @mask
// CHECK-SAME: %[[POSITION:[a-z0-9]+]]: i32, %[[KEY:[a-z0-9]+]]: i32, %[[START0:[a-z0-9]+]]: i32, %[[START1:[a-z0-9]+]]: i32, %[[SINK:[a-z0-9]+]]: i32)
llvm.func @mask(%s: vector<8xf32>, %position: i32, %key: i32, %start0: i32, %start1: i32, %sink: i32) -> vector<8xf32> attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 168, rows = 0, keys = 0>} {
  // CHECK-DAG: %[[NONE:.*]] = arith.constant 0xFF800000 : f32
  // CHECK: %[[S:.*]]:8 = vector.to_elements
  // CHECK: %[[FIRST:.*]] = arith.addi %[[KEY]], %{{.*}}
  // CHECK: %[[SINKS:.*]] = arith.subi %[[SINK]], %[[FIRST]]
  // CHECK: %[[OWN0:.*]] = arith.subi %[[POSITION]], %[[FIRST]]
  // CHECK: %[[FROM0:.*]] = arith.subi %[[START0]], %[[FIRST]]
  // CHECK: %[[BELOW:.*]] = arith.addi %[[POSITION]], %c8_i32
  // CHECK: %[[OWN1:.*]] = arith.subi %[[BELOW]], %[[FIRST]]
  // CHECK: %[[FROM1:.*]] = arith.subi %[[START1]], %[[FIRST]]
  // Hidden: behind the row, or left of its window and outside the sink.
  // CHECK: %[[ABOVE:.*]] = arith.cmpi slt, %[[OWN0]], %c0_i32
  // CHECK-NEXT: %[[LEFT:.*]] = arith.cmpi sgt, %[[FROM0]], %c0_i32
  // CHECK-NEXT: %[[PAST:.*]] = arith.cmpi sle, %[[SINKS]], %c0_i32
  // CHECK-NEXT: %[[OUTSIDE:.*]] = arith.andi %[[LEFT]], %[[PAST]]
  // CHECK-NEXT: %[[HIDDEN:.*]] = arith.ori %[[ABOVE]], %[[OUTSIDE]]
  // CHECK: arith.select %[[HIDDEN]], %[[NONE]], %[[S]]#0
  // CHECK: arith.cmpi slt, %[[OWN0]], %c1_i32
  // CHECK: arith.select %{{.*}}, %[[NONE]], %[[S]]#1
  // CHECK: arith.cmpi slt, %[[OWN1]], %c0_i32
  // CHECK-NEXT: arith.cmpi sgt, %[[FROM1]], %c0_i32
  // CHECK: arith.select %{{.*}}, %[[NONE]], %[[S]]#2
  // CHECK: arith.cmpi slt, %[[OWN1]], %c1_i32
  // CHECK: arith.select %{{.*}}, %[[NONE]], %[[S]]#3
  // CHECK: arith.cmpi slt, %[[OWN0]], %c8_i32
  // CHECK: arith.select %{{.*}}, %[[NONE]], %[[S]]#4
  // CHECK: arith.cmpi slt, %[[OWN1]], %c9_i32
  // CHECK: arith.select %{{.*}}, %[[NONE]], %[[S]]#7
  %m = moa_gpu.mask %s row %position key %key starts %start0, %start1 sink %sink : vector<8xf32>
  llvm.return %m : vector<8xf32>
}

// -----

// CHECK-LABEL: llvm.func @rows
llvm.func @rows(%s: vector<8xf32>, %scale: f32, %b: vector<2xf32>, %out: !llvm.ptr) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 168, rows = 0, keys = 0>} {
  // Row 0 has elements 0, 1, 4, 5.
  // CHECK: %[[S:.*]]:8 = vector.to_elements
  // CHECK-NEXT: %[[X:.*]] = arith.maxnumf %[[S]]#0, %[[S]]#1
  // CHECK-NEXT: %[[Y:.*]] = arith.maxnumf %[[S]]#4, %[[S]]#5
  // CHECK-NEXT: %[[R0:.*]] = arith.maxnumf %[[X]], %[[Y]]
  // CHECK-NEXT: arith.maxnumf %[[S]]#2, %[[S]]#3
  // CHECK-NEXT: arith.maxnumf %[[S]]#6, %[[S]]#7
  // CHECK-NEXT: arith.maxnumf
  %high = moa_gpu.row_reduce max %s : vector<8xf32>
  // Over the four lanes of a row: those that differ in bits 1 and 2.
  // CHECK: nvvm.shfl.sync {{ *}}bfly %{{.*}}, %[[R0]], %c1_i32
  // CHECK: arith.maxnumf %[[R0]]
  // CHECK: nvvm.shfl.sync {{ *}}bfly {{.*}}, %c2_i32
  // CHECK: nvvm.shfl.sync
  // CHECK: nvvm.shfl.sync
  %all = moa_gpu.lane_reduce max %high
  // Element 2 takes the bound of row 1.
  // CHECK: %[[T:.*]]:8 = vector.to_elements
  // CHECK: %[[B:.*]]:2 = vector.to_elements
  // CHECK: %[[N0:.*]] = arith.negf %[[B]]#0
  // CHECK: %[[N1:.*]] = arith.negf %[[B]]#1
  // CHECK: %[[F:.*]] = llvm.intr.fma(%[[T]]#0, %{{.*}}, %[[N0]])
  // CHECK: llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz.f"(%[[F]])
  // CHECK: llvm.intr.fma(%[[T]]#1, %{{.*}}, %[[N0]])
  // CHECK: llvm.intr.fma(%[[T]]#2, %{{.*}}, %[[N1]])
  %e = moa_gpu.exp2 %s * %scale - %b : vector<8xf32>
  // CHECK-COUNT-5: llvm.intr.fma
  // A pair is one element of each row.
  // CHECK: llvm.intr.fma(%{{.*}}#0, %{{.*}}, %{{.*}})
  // CHECK: llvm.intr.fma(%{{.*}}#1, %{{.*}}, %{{.*}})
  %f = moa_gpu.exp2 %b * %scale - %all : vector<2xf32>
  // CHECK: arith.cmpf ugt
  // CHECK: nvvm.rcp.approx.ftz.f
  // CHECK: arith.select
  %i = moa_gpu.reciprocal %f
  // CHECK: arith.mulf
  %n = moa_gpu.row_scale %e, %i : vector<8xf32>
  // The second element is the high half, which the conversion takes first.
  // CHECK: llvm.call_intrinsic "llvm.nvvm.ff2bf16x2.rn"(%[[HIGH:.*]], %[[LOW:.*]]) : (f32, f32) -> vector<2xbf16>
  // CHECK: llvm.bitcast {{.*}} : vector<2xbf16> to i32
  %p = moa_gpu.pack %n to bf16 : vector<8xf32> -> vector<4xi32>
  // CHECK: llvm.call_intrinsic "llvm.nvvm.ff2f16x2.rn"
  %h = moa_gpu.pack %n to f16 : vector<8xf32> -> vector<4xi32>
  // CHECK: nvvm.read.ptx.sreg.tid.x
  %row = moa_gpu.lane_row
  llvm.store %p, %out : vector<4xi32>, !llvm.ptr
  llvm.store %h, %out : vector<4xi32>, !llvm.ptr
  llvm.store %row, %out : i32, !llvm.ptr
  llvm.return
}

// -----

// The GPU's own tanh, element by element; or a rational function of all at once:
// bounded, a numerator of six products, a denominator of three.

// CHECK-LABEL: llvm.func @tanh
// CHECK-SAME: %[[S:[a-z0-9]+]]: vector<4xf32>, %[[FACTOR:[a-z0-9]+]]: f32
llvm.func @tanh(%s: vector<4xf32>, %factor: f32, %out: !llvm.ptr) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 168, rows = 0, keys = 0>} {
  // CHECK: %[[F:.*]] = vector.broadcast %[[FACTOR]] : f32 to vector<4xf32>
  // CHECK-NEXT: %[[X:.*]] = arith.mulf %[[S]], %[[F]]
  // CHECK-NEXT: %[[E:.*]]:4 = vector.to_elements %[[X]]
  // CHECK-NEXT: llvm.intr.tanh(%[[E]]#0) {fastmathFlags = #llvm.fastmath<afn>}
  // CHECK-COUNT-3: llvm.intr.tanh
  // CHECK-NOT: llvm.intr.tanh
  %a = moa_gpu.tanh %s * %factor approximate : vector<4xf32>
  // CHECK: %[[Y:.*]] = arith.mulf %[[S]], %{{.*}} : vector<4xf32>
  // CHECK-NEXT: arith.cmpf ogt, %[[Y]]
  // CHECK-NEXT: arith.select
  // CHECK-NEXT: arith.cmpf olt
  // CHECK-NEXT: %[[B:.*]] = arith.select
  // CHECK-NEXT: %[[U:.*]] = arith.mulf %[[B]], %[[B]]
  // CHECK-COUNT-6: vector.fma %{{.*}}, %[[U]]
  // CHECK-NEXT: %[[P:.*]] = arith.mulf %[[B]]
  // CHECK-COUNT-3: vector.fma %{{.*}}, %[[U]]
  // CHECK-NEXT: arith.divf %[[P]], %{{.*}} fastmath<afn>
  %e = moa_gpu.tanh %s * %factor : vector<4xf32>
  llvm.store %a, %out : vector<4xf32>, !llvm.ptr
  llvm.store %e, %out : vector<4xf32>, !llvm.ptr
  llvm.return
}
