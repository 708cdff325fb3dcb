// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Who does what in a kernel, and barriers.

func.func @roles_c1_producer() {
  // expected-error @+1 {{(C1) expected no argument of the producer and one i32 of the consumer, got 'i32' and 'i32'}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0(%n: i32):
  } consumer {
  ^bb0(%group: i32):
  }
  return
}

// -----

func.func @roles_c1_consumer() {
  // expected-error @+1 {{(C1) expected no argument of the producer and one i32 of the consumer, got  and 'i64'}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i64):
  }
  return
}

// -----

func.func @roles_c2_few() {
  // expected-error @+1 {{(C2) expected registers to be a multiple of 8 from 24 to 240, got 16}}
  moa_gpu.roles warpgroups = 2, registers = 16, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
  }
  return
}

// -----

func.func @roles_c2_step() {
  // expected-error @+1 {{(C2) expected registers to be a multiple of 8 from 24 to 240, got 236}}
  moa_gpu.roles warpgroups = 2, registers = 24, 236 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
  }
  return
}

// -----

func.func @roles_c2_many() {
  // expected-error @+1 {{(C2) expected registers to be a multiple of 8 from 24 to 240, got 248}}
  moa_gpu.roles warpgroups = 2, registers = 24, 248 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @roles_c3_get_without_put(%n: i32) {
  // expected-note @+1 {{this one is not: one side would wait for ever}}
  %r = moa_gpu.ring readers = 2 : !r
  // expected-error @+1 {{(C3) expected every ring to be put by the producer}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
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
func.func @roles_c3_put_without_get(%n: i32, %map: !llvm.ptr) {
  // expected-note @+1 {{this one is not: one side would wait for ever}}
  %r = moa_gpu.ring readers = 2 : !r
  // expected-error @+1 {{(C3) expected every ring to be read by the consumers}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    moa_gpu.release %r[%n] : !r
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @roles_c3_no_release(%n: i32, %map: !llvm.ptr) {
  // expected-note @+1 {{this one is not: one side would wait for ever}}
  %r = moa_gpu.ring readers = 2 : !r
  // expected-error @+1 {{(C3) expected every ring to be released by the consumers}}
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    %t = moa_gpu.get %r[%n] : !r -> !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @roles_c3_consumer_puts(%n: i32, %map: !llvm.ptr) {
  %r = moa_gpu.ring readers = 2 : !r
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
    // expected-error @+1 {{(C3 of moa_gpu.roles) expected in the producer region; consumers get}}
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @roles_c3_producer_gets(%n: i32) {
  %r = moa_gpu.ring readers = 2 : !r
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    // expected-error @+1 {{(C3 of moa_gpu.roles) expected in the consumer region; the producer puts}}
    %t = moa_gpu.get %r[%n] : !r -> !t
  } consumer {
  ^bb0(%group: i32):
  }
  return
}

// -----

func.func @roles_c4_producer(%n: i32) {
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
    // expected-error @+1 {{(C4 of moa_gpu.roles) expected in the consumer region: the producer is one thread}}
    moa_gpu.barrier sync %n, 256
  } consumer {
  ^bb0(%group: i32):
  }
  return
}

// -----

func.func @roles_c4_one_thread(%q: !moa_gpu.shared<64x64xf16>) {
  moa_gpu.roles warpgroups = 2, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
    moa_gpu.one_thread {
      // expected-error @+1 {{(C4 of moa_gpu.roles) expected outside moa_gpu.one_thread: the whole warpgroup takes part}}
      %s = moa_gpu.scores %q[%group], %q keys 64 depth 64 : !moa_gpu.shared<64x64xf16>, !moa_gpu.shared<64x64xf16> -> !moa_gpu.async<vector<32xf32>>
      %x = moa_gpu.wait %s pending 0 : !moa_gpu.async<vector<32xf32>>
    }
  }
  return
}

// -----

func.func @barrier_c1(%n: i32) {
  // expected-error @+1 {{(C1) expected a positive multiple of 32 threads, got 100}}
  moa_gpu.barrier arrive %n, 100
  return
}

// -----

func.func @barrier_c1_none(%n: i32) {
  // expected-error @+1 {{(C1) expected a positive multiple of 32 threads, got 0}}
  moa_gpu.barrier sync %n, 0
  return
}
