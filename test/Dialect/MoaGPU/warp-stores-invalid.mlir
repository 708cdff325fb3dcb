// Writes of a warp to a tile: who may make them, and what must come behind. A
// launch starts the next one when it has waited itself.
// RUN: moa-opt %s --split-input-file --verify-diagnostics

!tile = !moa_gpu.shared<64x64xbf16>
llvm.func @before_roles(%x: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  %tile = moa_gpu.shared : !tile
  // expected-error @+1 {{(C1) expected in the consumer region of moa_gpu.warp_roles, or in a kernel without roles: a warp's lanes write together}}
  moa_gpu.store_piece %x, %tile[%n, %n] : !tile
  moa_gpu.seal
  moa_gpu.warp_roles consumers = 1 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
llvm.func @groups(%x: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 128, rows = 64, keys = 64>} {
  %tile = moa_gpu.shared : !tile
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%group: i32):
    // expected-error @+1 {{(C1) expected in the consumer region of moa_gpu.warp_roles, or in a kernel without roles}}
    moa_gpu.store_piece %x, %tile[%n, %n] : !tile
    moa_gpu.seal
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
llvm.func @producer(%x: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  %tile = moa_gpu.shared : !tile
  moa_gpu.warp_roles consumers = 1 producer {
    // expected-error @+1 {{(C1) expected in the consumer region of moa_gpu.warp_roles}}
    moa_gpu.store_piece %x, %tile[%n, %n] : !tile
    moa_gpu.seal
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
llvm.func @unsealed(%x: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  %tile = moa_gpu.shared : !tile
  moa_gpu.warp_roles consumers = 1 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
    // expected-error @+1 {{(C2) expected a moa_gpu.seal behind it}}
    moa_gpu.store_piece %x, %tile[%n, %n] : !tile
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
llvm.func @read_first(%x: vector<4xi32>, %n: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  %tile = moa_gpu.shared : !tile
  moa_gpu.warp_roles consumers = 1 producer {
    %z = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
    scf.if %c {
      // expected-error @+1 {{(C2) expected a moa_gpu.seal behind it}}
      moa_gpu.store_piece %x, %tile[%n, %n] : !tile
    }
    // expected-note @+1 {{this comes first: other lanes, or the copy engine, may not see what was written}}
    %a = moa_gpu.load_matrix %tile[%n, 0] : !tile
    moa_gpu.seal
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
!ring = !moa_gpu.ring<1 x !tile>
llvm.func @released_first(%map: !llvm.ptr, %x: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  %ring = moa_gpu.ring readers = 1 : !ring
  moa_gpu.warp_roles consumers = 1 producer {
    moa_gpu.put %ring[%n] : !ring {
    ^bb0(%tile: !tile, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %tile[0, 0], %full : !llvm.ptr, !tile
    }
  } consumer {
  ^bb0(%warp: i32):
    %tile = moa_gpu.get %ring[%n] : !ring -> !tile
    // expected-error @+1 {{(C2) expected a moa_gpu.seal behind it}}
    moa_gpu.store_piece %x, %tile[%n, %n] : !tile
    // expected-note @+1 {{this comes first}}
    moa_gpu.release %ring[%n] : !ring
    moa_gpu.seal
  }
  llvm.return
}

// -----

llvm.func @diverged(%x: vector<4xi32>, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  moa_gpu.warp_roles consumers = 1 producer {
    %z = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
    // expected-note @+1 {{its condition depends on this, which differs by thread}}
    %thread = nvvm.read.ptx.sreg.tid.x : i32
    %c = arith.cmpi slt, %thread, %n : i32
    scf.if %c {
      // expected-error @+1 {{(C1) expected under no branch or loop that may go differently in different threads}}
      moa_gpu.seal
    }
  }
  llvm.return
}
