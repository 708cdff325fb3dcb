// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

// Pages that may be in 8 bits: a stage takes elements or codes, the place and the
// scales of its page go along; operands are woven.

!tile = !moa_gpu.shared<128x64xbf16>
!codes = !moa_gpu.shared<128x128xi8>
!ring = !moa_gpu.ring<2 x !tile, words = 8>

// CHECK-LABEL: llvm.func @codes
llvm.func @codes(%map: !llvm.ptr, %n: i32, %scales: !llvm.ptr<1>, %pairs: vector<2xi32>) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 8, keys = 64>} {
  %ring = moa_gpu.ring readers = 1 : !ring
  moa_gpu.warp_roles consumers = 1 producer {
    // CHECK: moa_gpu.put %{{.*}}[%{{.*}}] words(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) : <2 x !moa_gpu.shared<128x64xbf16>, words = 8> {
    // CHECK-NEXT: ^bb0(%[[TILE:.*]]: !moa_gpu.shared<128x128xi8>, %[[FULL:.*]]: !moa_gpu.barrier):
    moa_gpu.put %ring[%n] words(%n, %n, %n, %n) : !ring {
    ^bb0(%t: !codes, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !codes
      moa_gpu.copy_in %map[%n, %n, %n] to %t[1, 0], %full : !llvm.ptr, !codes
      // CHECK: moa_gpu.copy_words %{{.*}}, %[[FULL]] : <1>
      moa_gpu.copy_words %scales, %full : !llvm.ptr<1>
    }
  } consumer {
  ^bb0(%warp: i32):
    %t, %words:8 = moa_gpu.get %ring[%n] : !ring -> !tile, i32, i32, i32, i32, i32, i32, i32, i32
    // CHECK: moa_gpu.load_woven %{{.*}}[%{{.*}}, 16] transposed : <128x64xbf16>
    %a = moa_gpu.load_woven %t[%n, 16] transposed : !tile
    // CHECK: moa_gpu.load_woven %{{.*}}[%{{.*}}, 48] : <128x64xbf16>
    %b = moa_gpu.load_woven %t[%n, 48] : !tile
    // CHECK: moa_gpu.weave %{{.*}}
    %q = moa_gpu.weave %pairs
    // CHECK: %[[CODES:.*]] = moa_gpu.as_codes %{{.*}} : <128x64xbf16> -> <128x128xi8>
    %c = moa_gpu.as_codes %t : !tile -> !codes
    // CHECK: %[[BLOCK:.*]] = moa_gpu.load_matrix %[[CODES]][%{{.*}}, 32] transposed : <128x128xi8>
    %x = moa_gpu.load_matrix %c[%n, 32] transposed : !codes
    // CHECK: moa_gpu.unpack %[[BLOCK]] e4m3 to bf16 : vector<4xi32> -> vector<8xi32>
    %e = moa_gpu.unpack %x e4m3 to bf16 : vector<4xi32> -> vector<8xi32>
    // CHECK: moa_gpu.unpack %[[BLOCK]] int8 to f16 : vector<4xi32> -> vector<8xi32>
    %i = moa_gpu.unpack %x int8 to f16 : vector<4xi32> -> vector<8xi32>
    moa_gpu.release %ring[%n] : !ring
  }
  llvm.return
}

!places = !moa_gpu.buffers<2 x !tile>

// CHECK-LABEL: llvm.func @fetch
llvm.func @fetch(%from: !llvm.ptr<1>, %stride: i64, %n: i32, %there: i1, %codes: i1) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 0, keys = 0>} {
  %places = moa_gpu.buffers : !places
  // CHECK: moa_gpu.fetch %{{.*}} stride %{{.*}} rows %{{.*}} to %{{.*}} columns 48 into %{{.*}}[%{{.*}}] if %{{.*}} codes if %{{.*}} : <2 x !moa_gpu.shared<128x64xbf16>>
  moa_gpu.fetch %from stride %stride rows %n to %n columns 48 into %places[%n] if %there codes if %codes : !places
  llvm.return
}
