// RUN: moa-opt %s | moa-opt | FileCheck %s --strict-whitespace
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s --strict-whitespace

!tile = !moa_gpu.shared<128x64xbf16>
!kv = !moa_gpu.ring<2 x !tile>
!queries = !moa_gpu.ring<1 x !tile>

// Every operation once, in the order of a kernel.
// CHECK-LABEL: llvm.func @kernel
llvm.func @kernel(%map: !llvm.ptr, %use: i32, %row: i32, %head: i32, %sum: vector<32xf32>, %p: vector<32xi32>, %scale: f32, %bound: vector<2xf32>) {
  // CHECK: %[[Q:.*]] = moa_gpu.ring readers = 2 : <1 x !moa_gpu.shared<128x64xbf16>>
  %q = moa_gpu.ring readers = 2 : !queries
  // CHECK: %[[R:.*]] = moa_gpu.ring readers = 2 : <2 x !moa_gpu.shared<128x64xbf16>>
  %r = moa_gpu.ring readers = 2 : !kv
  // CHECK: %[[OUT:.*]] = moa_gpu.shared : <128x64xbf16>
  %out = moa_gpu.shared : !tile
  // CHECK: {{^    }}moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    // CHECK-NEXT: moa_gpu.put %[[Q]][%[[U:.*]]] : <1 x !moa_gpu.shared<128x64xbf16>> {
    moa_gpu.put %q[%use] : !queries {
    // CHECK-NEXT: ^bb0(%[[T:.*]]: !moa_gpu.shared<128x64xbf16>, %[[F:.*]]: !moa_gpu.barrier):
    ^bb0(%t: !tile, %full: !moa_gpu.barrier):
      // CHECK-NEXT: moa_gpu.copy_in %{{.*}}[%{{.*}}, %{{.*}}, %{{.*}}] to %[[T]][0, 0], %[[F]] : !llvm.ptr, <128x64xbf16>
      moa_gpu.copy_in %map[%use, %row, %head] to %t[0, 0], %full : !llvm.ptr, !tile
      // CHECK-NEXT: moa_gpu.copy_in %{{.*}} to %[[T]][1, 0], %[[F]]
      moa_gpu.copy_in %map[%use, %row, %head] to %t[1, 0], %full : !llvm.ptr, !tile
    }
    moa_gpu.put %r[%use] : !kv {
    ^bb0(%t: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%use, %row, %head] to %t[1, 0], %full : !llvm.ptr, !tile
      moa_gpu.copy_in %map[%use, %row, %head] to %t[0, 0], %full : !llvm.ptr, !tile
    }
  // CHECK: } consumer {
  } consumer {
  // CHECK-NEXT: ^bb0(%[[G:.*]]: i32):
  ^bb0(%group: i32):
    // CHECK-NEXT: moa_gpu.barrier arrive %[[G]], 256
    moa_gpu.barrier arrive %group, 256
    // CHECK-NEXT: moa_gpu.barrier sync %[[G]], 128
    moa_gpu.barrier sync %group, 128
    // CHECK-NEXT: %[[QT:.*]] = moa_gpu.get %[[Q]][%[[U]]] : <1 x !moa_gpu.shared<128x64xbf16>> -> <128x64xbf16>
    %qt = moa_gpu.get %q[%use] : !queries -> !tile
    %k = moa_gpu.get %r[%use] : !kv -> !tile
    // CHECK: %[[S:.*]] = moa_gpu.scores %[[QT]][%[[G]]], %[[K:.*]] keys 128 depth 64 : <128x64xbf16>, <128x64xbf16> -> !moa_gpu.async<vector<64xf32>>
    %s = moa_gpu.scores %qt[%group], %k keys 128 depth 64 : !tile, !tile -> !moa_gpu.async<vector<64xf32>>
    // CHECK-NEXT: %[[A:.*]] = moa_gpu.accumulate %{{.*}}, %[[K]], %{{.*}} : vector<32xi32>, <128x64xbf16>, vector<32xf32>
    %a = moa_gpu.accumulate %p, %k, %sum : vector<32xi32>, !tile, vector<32xf32>
    // CHECK-NEXT: %[[X:.*]] = moa_gpu.wait %[[S]] pending 1 : !moa_gpu.async<vector<64xf32>>
    %x = moa_gpu.wait %s pending 1 : !moa_gpu.async<vector<64xf32>>
    // CHECK-NEXT: %[[I:.*]] = moa_gpu.lane_row
    %i = moa_gpu.lane_row
    // CHECK-NEXT: %[[M:.*]] = moa_gpu.mask %[[X]] row %[[I]] key %{{.*}} starts %[[I]], %[[I]] sink %{{.*}} : vector<64xf32>
    %m = moa_gpu.mask %x row %i key %row starts %i, %i sink %head : vector<64xf32>
    // CHECK-NEXT: %[[H:.*]] = moa_gpu.row_reduce max %[[M]] : vector<64xf32>
    %h = moa_gpu.row_reduce max %m : vector<64xf32>
    // CHECK-NEXT: %[[L:.*]] = moa_gpu.lane_reduce max %[[H]]
    %l = moa_gpu.lane_reduce max %h
    // CHECK-NEXT: moa_gpu.tanh %[[M]] * %{{.*}} : vector<64xf32>
    %t = moa_gpu.tanh %m * %scale : vector<64xf32>
    // CHECK-NEXT: moa_gpu.tanh %[[M]] * %{{.*}} approximate : vector<64xf32>
    %u = moa_gpu.tanh %m * %scale approximate : vector<64xf32>
    // CHECK-NEXT: %[[E:.*]] = moa_gpu.exp2 %[[M]] * %{{.*}} - %[[L]] : vector<64xf32>
    %e = moa_gpu.exp2 %m * %scale - %l : vector<64xf32>
    // CHECK-NEXT: moa_gpu.exp2 %{{.*}} * %{{.*}} - %[[L]] : vector<2xf32>
    %f = moa_gpu.exp2 %bound * %scale - %l : vector<2xf32>
    // CHECK-NEXT: moa_gpu.row_reduce add %[[E]] : vector<64xf32>
    %d = moa_gpu.row_reduce add %e : vector<64xf32>
    // CHECK-NEXT: moa_gpu.pack %[[E]] to bf16 : vector<64xf32> -> vector<32xi32>
    %e16 = moa_gpu.pack %e to bf16 : vector<64xf32> -> vector<32xi32>
    // CHECK-NEXT: moa_gpu.order_fence %[[R]][%[[U]]] : <2 x !moa_gpu.shared<128x64xbf16>>
    moa_gpu.order_fence %r[%use] : !kv
    // CHECK-NEXT: %[[O:.*]] = moa_gpu.wait %[[A]] pending 0 : !moa_gpu.async<vector<32xf32>>
    %o = moa_gpu.wait %a pending 0 : !moa_gpu.async<vector<32xf32>>
    // CHECK-NEXT: moa_gpu.release %[[R]][%[[U]]] : <2 x !moa_gpu.shared<128x64xbf16>>
    moa_gpu.release %r[%use] : !kv
    moa_gpu.release %q[%use] : !queries
    // CHECK: %[[V:.*]] = moa_gpu.reciprocal %
    %v = moa_gpu.reciprocal %d
    // CHECK-NEXT: %[[N:.*]] = moa_gpu.row_scale %[[O]], %[[V]] : vector<32xf32>
    %n = moa_gpu.row_scale %o, %v : vector<32xf32>
    // CHECK-NEXT: %[[N16:.*]] = moa_gpu.pack %[[N]] to f16 : vector<32xf32> -> vector<16xi32>
    %n16 = moa_gpu.pack %n to f16 : vector<32xf32> -> vector<16xi32>
    // CHECK-NEXT: moa_gpu.stage %[[N16]], %[[OUT]][%[[G]]] : vector<16xi32>, <128x64xbf16>
    moa_gpu.stage %n16, %out[%group] : vector<16xi32>, !tile
    // CHECK-NEXT: {{^      }}moa_gpu.one_thread {
    moa_gpu.one_thread {
      // CHECK-NEXT: moa_gpu.copy_out %[[OUT]][%[[G]]] to %{{.*}}[%{{.*}}, %{{.*}}] : <128x64xbf16>, !llvm.ptr
      moa_gpu.copy_out %out[%group] to %map[%row, %head] : !tile, !llvm.ptr
      // CHECK-NEXT: {{^        }}moa_gpu.copy_out_wait{{$}}
      moa_gpu.copy_out_wait
    }
  }
  llvm.return
}
