// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse | FileCheck %s --implicit-check-not=moa_gpu.

// Pages in 8 bits. A stage of codes has as many bytes as its boxes, and 16 more of
// the words that are copied, behind those that are stored.

!tile = !moa_gpu.shared<128x64xbf16>
!codes = !moa_gpu.shared<128x128xi8>
!ring = !moa_gpu.ring<2 x !tile, words = 8>

// CHECK-LABEL: llvm.func @codes
// CHECK-SAME: %[[SCALES:[a-z0-9]+]]: !llvm.ptr<1>, %[[PAIRS:[a-z0-9]+]]: vector<2xi32>
llvm.func @codes(%map: !llvm.ptr, %n: i32, %scales: !llvm.ptr<1>, %pairs: vector<2xi32>) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 8, keys = 64>} {
  %ring = moa_gpu.ring readers = 1 : !ring
  moa_gpu.warp_roles consumers = 1 producer {
    // CHECK: llvm.store %{{.*}}, %[[WORDS:.*]] {alignment = 16 : i64} : vector<4xi32>
    // CHECK-NEXT: %[[LAST:.*]] = llvm.getelementptr %[[WORDS]][16]
    // CHECK-NEXT: nvvm.mbarrier.arrive.expect_tx %[[FULL:.*]], %c16400_i32
    // CHECK-COUNT-2: nvvm.cp.async.bulk.tensor
    // CHECK: nvvm.cp.async.bulk.shared.cluster.global %[[LAST]], %[[SCALES]], %[[FULL]], %c16_i32
    moa_gpu.put %ring[%n] words(%n, %n, %n, %n) : !ring {
    ^bb0(%t: !codes, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !codes
      moa_gpu.copy_in %map[%n, %n, %n] to %t[1, 0], %full : !llvm.ptr, !codes
      moa_gpu.copy_words %scales, %full : !llvm.ptr<1>
    }
  } consumer {
  ^bb0(%warp: i32):
    %t, %words:8 = moa_gpu.get %ring[%n] : !ring -> !tile, i32, i32, i32, i32, i32, i32, i32, i32

    // Two rows a lane, four columns of each: even ones are a pair, odd ones too.
    // CHECK: %[[ROW:.*]] = llvm.load %{{.*}} {alignment = 8 : i64} : !llvm.ptr<3> -> vector<2xi32>
    // CHECK-NEXT: %[[TWO:.*]]:2 = vector.to_elements %[[ROW]]
    // CHECK-NEXT: %[[A0:.*]] = nvvm.prmt <default> %c21520_i32, %[[TWO]]#0, %[[TWO]]#1
    // CHECK-NEXT: %[[A2:.*]] = nvvm.prmt <default> %c30258_i32, %[[TWO]]#0, %[[TWO]]#1
    // CHECK: %[[A1:.*]] = nvvm.prmt <default> %c21520_i32
    // CHECK-NEXT: %[[A3:.*]] = nvvm.prmt <default> %c30258_i32
    // CHECK-NEXT: vector.from_elements %[[A0]], %[[A1]], %[[A2]], %[[A3]]
    %a = moa_gpu.load_woven %t[%n, 16] : !tile
    llvm.store %a, %map : vector<4xi32>, !llvm.ptr

    // Transposed, two columns of four rows.
    // CHECK-COUNT-2: llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<3> -> i32
    // CHECK-NEXT: %[[T0:.*]] = nvvm.prmt <default> %c21520_i32
    // CHECK-NEXT: %[[T1:.*]] = nvvm.prmt <default> %c30258_i32
    // CHECK-COUNT-2: llvm.load %{{.*}} {alignment = 4 : i64} : !llvm.ptr<3> -> i32
    // CHECK-NEXT: %[[T2:.*]] = nvvm.prmt <default> %c21520_i32
    // CHECK-NEXT: %[[T3:.*]] = nvvm.prmt <default> %c30258_i32
    // CHECK-NEXT: vector.from_elements %[[T0]], %[[T1]], %[[T2]], %[[T3]]
    %b = moa_gpu.load_woven %t[%n, 48] transposed : !tile
    llvm.store %b, %map : vector<4xi32>, !llvm.ptr
    // CHECK: %[[IN:.*]]:2 = vector.to_elements %[[PAIRS]]
    // CHECK-NEXT: nvvm.prmt <default> %c21520_i32, %[[IN]]#0, %[[IN]]#1
    %q = moa_gpu.weave %pairs
    llvm.store %q, %map : vector<2xi32>, !llvm.ptr

    // Codes are read as a matrix of pairs of bytes.
    // CHECK: nvvm.ldmatrix %{{.*}} {eltType = #nvvm.ld_st_matrix_elt_type<b16>, layout = #nvvm.mma_layout<col>
    %c = moa_gpu.as_codes %t : !tile -> !codes
    %x = moa_gpu.load_matrix %c[%n, 32] transposed : !codes

    // e4m3: bytes with their signs above them, to their places, times 2^120.
    // CHECK: %[[WIDE:.*]] = nvvm.prmt <default> %c41600_i32, %[[CODE:.*]], %[[CODE]]
    // CHECK-NEXT: %[[HIGH:.*]] = arith.shli %[[WIDE]], %c4_i32
    // CHECK-NEXT: arith.andi %[[HIGH]], %c-2014279696_i32
    // CHECK: llvm.intr.fma{{.*}}vector<2xbf16>
    // CHECK: nvvm.prmt <default> %c45969_i32, %[[CODE]], %[[CODE]]
    %e = moa_gpu.unpack %x e4m3 to bf16 : vector<4xi32> -> vector<8xi32>
    llvm.store %e, %map : vector<8xi32>, !llvm.ptr

    // int8 as f16: 1024 + code, less 1152.
    // CHECK: nvvm.prmt <default> %c29296_i32, %{{.*}}, %c1677747200_i32
    // CHECK: llvm.intr.fma{{.*}}vector<2xf16>
    // CHECK: nvvm.prmt <default> %c29553_i32, %{{.*}}, %c1677747200_i32
    %i = moa_gpu.unpack %x int8 to f16 : vector<4xi32> -> vector<8xi32>
    llvm.store %i, %map : vector<8xi32>, !llvm.ptr

    // int8 as bf16: 128 + seven bits, less 128 or 256. Both are one instruction.
    // CHECK: llvm.inline_asm {{.*}}"lop3.b32 $0, $1, 0x7f007f, 0x43004300, 0xea;", "=r,r" %{{.*}} : (i32) -> i32
    // CHECK-NEXT: llvm.inline_asm {{.*}}"lop3.b32 $0, $1, 0x800080, 0x42804280, 0x6a;", "=r,r" %{{.*}} : (i32) -> i32
    // CHECK: llvm.intr.fma{{.*}}vector<2xbf16>
    // CHECK: arith.shrui %{{.*}}, %c8_i32
    %j = moa_gpu.unpack %x int8 to bf16 : vector<4xi32> -> vector<8xi32>
    llvm.store %j, %map : vector<8xi32>, !llvm.ptr
    moa_gpu.release %ring[%n] : !ring
  }
  llvm.return
}
