// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

// Words travel with a tile; a reader may take the tile alone.

!tile = !moa_gpu.shared<64x64xf16>
!ring = !moa_gpu.ring<2 x !tile, words = 4>

// CHECK-LABEL: llvm.func @words
llvm.func @words(%map: !llvm.ptr, %n: i32, %a: i32, %b: i32) {
  // CHECK: %[[R:.*]] = moa_gpu.ring readers = 1 : <2 x !moa_gpu.shared<64x64xf16>, words = 4>
  %r = moa_gpu.ring readers = 1 : !ring
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    // CHECK: moa_gpu.put %[[R]][%[[N:.*]]] words(%[[N]], %[[A:.*]], %[[B:.*]], %[[A]]) : <2 x !moa_gpu.shared<64x64xf16>, words = 4> {
    moa_gpu.put %r[%n] words(%n, %a, %b, %a) : !ring {
    ^bb0(%t: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !tile
    }
  } consumer {
  ^bb0(%group: i32):
    // CHECK: %{{.*}}, %{{.*}}:4 = moa_gpu.get %[[R]][%[[N]]] : <2 x !moa_gpu.shared<64x64xf16>, words = 4> -> <64x64xf16>, i32, i32, i32, i32
    %t, %words:4 = moa_gpu.get %r[%n] : !ring -> !tile, i32, i32, i32, i32
    // CHECK: %{{.*}} = moa_gpu.get %[[R]][%[[N]]] : <2 x !moa_gpu.shared<64x64xf16>, words = 4> -> <64x64xf16>{{$}}
    %again = moa_gpu.get %r[%n] : !ring -> !tile
    moa_gpu.barrier sync %a, 128
    moa_gpu.release %r[%n] : !ring
  }
  llvm.return
}

// Words are the same in all threads: products may depend on them.
// CHECK-LABEL: llvm.func @uniform
llvm.func @uniform(%r: !llvm.ptr, %n: i32) {
  %ring = moa_gpu.ring readers = 1 : !ring
  %t, %words:4 = moa_gpu.get %ring[%n] : !ring -> !tile, i32, i32, i32, i32
  %c = arith.cmpi slt, %words#0, %n : i32
  scf.if %c {
    // CHECK: moa_gpu.scores
    %s = moa_gpu.scores %t[%n], %t keys 64 depth 64 : !tile, !tile -> !moa_gpu.async<vector<32xf32>>
    %x = moa_gpu.wait %s pending 0 : !moa_gpu.async<vector<32xf32>>
  }
  llvm.return
}
