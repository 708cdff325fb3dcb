// RUN: moa-opt %s --split-input-file --verify-diagnostics

!tile = !moa_gpu.shared<128x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>
llvm.func @arguments() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  // expected-error @+1 {{(C1) expected no argument of the producer and one i32 of the consumer, got  and}}
  moa_gpu.warp_roles consumers = 2 producer {
    %c = arith.constant 0 : i32
  } consumer {
    %d = arith.constant 0 : i32
  }
  llvm.return
}

// -----

llvm.func @launch() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  // expected-error @+1 {{(C2) expected 1 consumer or more and a launch with one warp besides, got 3 consumers and 3 warps}}
  moa_gpu.warp_roles consumers = 3 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

llvm.func @no_launch() {
  // expected-error @+1 {{(C2) expected 1 consumer or more and a launch with one warp besides, got 3 consumers and no moa_gpu.launch}}
  moa_gpu.warp_roles consumers = 3 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<128x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>
llvm.func @one_side(%n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  // expected-note @+1 {{this one is not: one side would wait for ever}}
  %ring = moa_gpu.ring readers = 2 : !ring
  // expected-error @+1 {{(C3) expected every ring to be put by the producer}}
  moa_gpu.warp_roles consumers = 2 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
    %t = moa_gpu.get %ring[%n] : !ring -> !tile
    moa_gpu.release %ring[%n] : !ring
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<128x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>
llvm.func @wrong_side(%n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  %ring = moa_gpu.ring readers = 2 : !ring
  moa_gpu.warp_roles consumers = 2 producer {
    // expected-error @+1 {{(C3 of moa_gpu.warp_roles) expected in the consumer region; the producer puts}}
    moa_gpu.release %ring[%n] : !ring
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>
llvm.func @readers(%map: !llvm.ptr, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  // expected-error @+1 {{(C3 of moa_gpu.warp_roles) expected at most 2 readers, as many as there are consumers, got 4}}
  %ring = moa_gpu.ring readers = 4 : !ring
  moa_gpu.warp_roles consumers = 2 producer {
    moa_gpu.put %ring[%n] : !ring {
    ^bb0(%tile: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %tile[0, 0], %full : !llvm.ptr, !tile
    }
  } consumer {
  ^bb0(%warp: i32):
    %t = moa_gpu.get %ring[%n] : !ring -> !tile
    moa_gpu.release %ring[%n] : !ring
  }
  llvm.return
}

// -----

llvm.func @producer_computes(%n: i32, %x: vector<2xi32>) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 1, keys = 64>} {
  moa_gpu.warp_roles consumers = 2 producer {
    // expected-error @+1 {{(C4 of moa_gpu.warp_roles) expected in the consumer region: the producer only loads}}
    %t = moa_gpu.transpose %x : vector<2xi32>
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

llvm.func @scratch_place(%c: i1) {
  scf.if %c {
    // expected-error @+1 {{(C1) expected in the entry block of a kernel: shared memory is laid out once}}
    %s = moa_gpu.scratch 16 : <3>
  }
  llvm.return
}

// -----

llvm.func @scratch_bytes() {
  // expected-error @+1 {{(C2) expected a positive multiple of 16 bytes, got 40}}
  %s = moa_gpu.scratch 40 : <3>
  llvm.return
}

// -----

func.func @column(%tile: !moa_gpu.shared<64x64xf16>, %row: i32) {
  // expected-error @+1 {{(C1) expected a column that is a multiple of 16 below 64, got 64}}
  %a = moa_gpu.load_matrix %tile[%row, 64] : !moa_gpu.shared<64x64xf16>
  return
}

// -----

func.func @odd_column(%tile: !moa_gpu.shared<64x64xf16>, %row: i32) {
  // expected-error @+1 {{(C1) expected a column that is a multiple of 16 below 64, got 8}}
  %a = moa_gpu.load_matrix %tile[%row, 8] transposed : !moa_gpu.shared<64x64xf16>
  return
}

// -----

func.func @type(%a: vector<4xi32>, %b: vector<2xi32>, %s: vector<4xf32>) {
  // expected-error @+1 {{(C1) expected type f16, bf16 or tf32, got 'f32'}}
  %p = moa_gpu.multiply %a, %b, %s as f32
  return
}
