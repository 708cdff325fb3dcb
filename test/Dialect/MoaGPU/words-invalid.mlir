// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C2) expected a multiple of 4 words from 0 to 64, got 6}}
func.func private @ring_c2_step(!moa_gpu.ring<2 x !moa_gpu.shared<64x64xf16>, words = 6>)

// -----

// expected-error @+1 {{(C2) expected a multiple of 4 words from 0 to 64, got 68}}
func.func private @ring_c2_many(!moa_gpu.ring<2 x !moa_gpu.shared<64x64xf16>, words = 68>)

// -----

// expected-error @+1 {{(C2) expected a multiple of 4 words from 0 to 64, got -4}}
func.func private @ring_c2_negative(!moa_gpu.ring<2 x !moa_gpu.shared<64x64xf16>, words = -4>)

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t, words = 4>
func.func @put_c3_fewer(%r: !r, %n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C3) expected 4 words, as the ring has, or four fewer and at most one moa_gpu.copy_words, got 1 and 0}}
  moa_gpu.put %r[%n] words(%n) : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c3_more(%r: !r, %n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C3) expected 0 words, as the ring has, or four fewer and at most one moa_gpu.copy_words, got 1 and 0}}
  moa_gpu.put %r[%n] words(%n) : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t, words = 8>
func.func @get_c2(%r: !r, %n: i32) {
  // expected-error @+1 {{(C2) expected no words or the ring's 8, got 4}}
  %t, %words:4 = moa_gpu.get %r[%n] : !r -> !t, i32, i32, i32, i32
  return
}

// -----

// A barrier that others only arrive at, and a wait that a loop may not come to,
// hold nobody back.
!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<1 x !t, words = 4>
!s = !moa_gpu.async<vector<32xf32>>
func.func @get_c3(%r: !r, %n: i32, %c: i1) {
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
  ^bb0:
  } consumer {
  ^bb0(%group: i32):
    scf.if %c {
      // expected-error @+1 {{(C3) expected a moa_gpu.wait or a barrier between words and the ring's release}}
      %t, %words:4 = moa_gpu.get %r[%n] : !r -> !t, i32, i32, i32, i32
      moa_gpu.barrier arrive %n, 128
    }
    %q = moa_gpu.get %r[%n] : !r -> !t
    scf.for %i = %n to %group step %n : i32 {
      %a = moa_gpu.scores %q[%n], %q keys 64 depth 64 : !t, !t -> !s
      %x = moa_gpu.wait %a pending 0 : !s
    }
    scf.if %c {
      // expected-note @+1 {{one thread releases here, others may still be reading}}
      moa_gpu.release %r[%n] : !r
    }
  }
  return
}
