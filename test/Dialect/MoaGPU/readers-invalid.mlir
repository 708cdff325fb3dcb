// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Who reads a ring, and what a kernel is launched with: else one side waits for
// what never comes, or does not wait where it must.

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @roles_c5_few(%n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C5 of moa_gpu.roles) expected 2 readers, as many as there are warpgroups that compute, got 1}}
  %r = moa_gpu.ring readers = 1 : !r
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    %t = moa_gpu.get %r[%n] : !r -> !t
    moa_gpu.release %r[%n] : !r
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @roles_c5_many(%n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C5 of moa_gpu.roles) expected 2 readers, as many as there are warpgroups that compute, got 3}}
  %r = moa_gpu.ring readers = 3 : !r
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    %t = moa_gpu.get %r[%n] : !r -> !t
    moa_gpu.release %r[%n] : !r
  }
  return
}

// -----

llvm.func @roles_c6_threads() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 64, keys = 64>} {
  // expected-error @+1 {{(C6) expected a launch with 384 threads, a warpgroup more than the 2 that compute, got 256}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
  }
  llvm.return
}

// -----

llvm.func @roles_c6_registers() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 384, registers = 160, rows = 64, keys = 64>} {
  // expected-error @+1 {{(C6) expected registers of the warpgroups that are at most 480 together, as at the launch, got 504}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x64xbf16>
!ring = !moa_gpu.ring<3 x !tile>
llvm.func @streams_of_a_stage(%map: !llvm.ptr, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 160, registers = 128, rows = 1, keys = 64>} {
  // expected-error @+1 {{(C5 of moa_gpu.warp_roles) expected readers that divide the 4 consumers, and stages that are a multiple of consumers / readers, got 2 readers and 3 stages}}
  %ring = moa_gpu.ring readers = 2 : !ring
  moa_gpu.warp_roles consumers = 4 producer {
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

!tile = !moa_gpu.shared<64x64xbf16>
!ring = !moa_gpu.ring<2 x !tile>
llvm.func @readers_left_over(%map: !llvm.ptr, %n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 160, registers = 128, rows = 1, keys = 64>} {
  // expected-error @+1 {{(C5 of moa_gpu.warp_roles) expected readers that divide the 4 consumers, and stages that are a multiple of consumers / readers, got 3 readers and 2 stages}}
  %ring = moa_gpu.ring readers = 3 : !ring
  moa_gpu.warp_roles consumers = 4 producer {
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
