// RUN: moa-opt %s --split-input-file --verify-diagnostics

// Rings, tiles, copies and barriers; roles-invalid.mlir has who may use them.

func.func @ring_c1_nested(%n: i32) {
  scf.for %i = %n to %n step %n : i32 {
    // expected-error @+1 {{(C1) expected in the entry block of a kernel: shared memory is laid out once}}
    %r = moa_gpu.ring readers = 2 : !moa_gpu.ring<2 x !moa_gpu.shared<64x64xf16>>
  }
  return
}

// -----

func.func @ring_c1_block(%n: i32) {
  cf.br ^next
^next:
  // expected-error @+1 {{(C1) expected in the entry block of a kernel}}
  %r = moa_gpu.ring readers = 2 : !moa_gpu.ring<2 x !moa_gpu.shared<64x64xf16>>
  return
}

// -----

func.func @ring_c2() {
  // expected-error @+1 {{(C2) expected a positive number of readers, got 0}}
  %r = moa_gpu.ring readers = 0 : !moa_gpu.ring<2 x !moa_gpu.shared<64x64xf16>>
  return
}

// -----

func.func @shared_c1(%c: i1) {
  scf.if %c {
    // expected-error @+1 {{(C1) expected in the entry block of a kernel}}
    %r = moa_gpu.shared : !moa_gpu.shared<64x64xf16>
  }
  return
}

// -----

!t = !moa_gpu.shared<64x128xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c1(%r: !r, %n: i32) {
  // expected-error @+1 {{(C1) expected body arguments ('!moa_gpu.shared<64x128xf16>', !moa_gpu.barrier), got '!moa_gpu.shared<64x64xf16>', '!moa_gpu.barrier'}}
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !moa_gpu.shared<64x64xf16>, %full: !moa_gpu.barrier):
  }
  return
}

// -----

!t = !moa_gpu.shared<64x128xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c1_barrier(%r: !r, %n: i32) {
  // expected-error @+1 {{(C1) expected body arguments ('!moa_gpu.shared<64x128xf16>', !moa_gpu.barrier), got '!moa_gpu.shared<64x128xf16>'}}
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !t):
  }
  return
}

// -----

!t = !moa_gpu.shared<64x128xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c2_missing(%r: !r, %n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C2) expected copies of all 2 boxes of the tile, got 1: readers would wait for the rest for ever}}
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 1], %full : !llvm.ptr, !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x128xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c2_twice(%r: !r, %n: i32, %map: !llvm.ptr) {
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 1], %full : !llvm.ptr, !t
    // expected-error @+1 {{(C2 of moa_gpu.put) expected each box once, got [0, 1] again}}
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 1], %full : !llvm.ptr, !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c4_tile(%r: !r, %other: !t, %n: i32, %map: !llvm.ptr) {
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    // expected-error @+1 {{(C4 of moa_gpu.put) expected directly in the body, to its tile and its barrier}}
    moa_gpu.copy_in %map[%n, %n, %n] to %other[0, 0], %full : !llvm.ptr, !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c4_barrier(%r: !r, %n: i32, %map: !llvm.ptr, %other: !moa_gpu.barrier) {
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    // expected-error @+1 {{(C4 of moa_gpu.put)}}
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %other : !llvm.ptr, !t
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c4_branch(%r: !r, %n: i32, %map: !llvm.ptr, %c: i1) {
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    scf.if %c {
      // expected-error @+1 {{(C4 of moa_gpu.put)}}
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  }
  return
}

// -----

func.func @copy_in_c1(%n: i32, %map: !llvm.ptr, %t: !moa_gpu.shared<64x128xf16>, %full: !moa_gpu.barrier) {
  // expected-error @+1 {{(C1) expected a box [row / 64, panel] below [1, 2], got [1, 0]}}
  moa_gpu.copy_in %map[%n, %n, %n] to %t[1, 0], %full : !llvm.ptr, !moa_gpu.shared<64x128xf16>
  return
}

// -----

func.func @copy_in_c1_numbers(%n: i32, %map: !llvm.ptr, %t: !moa_gpu.shared<64x128xf16>, %full: !moa_gpu.barrier) {
  // expected-error @+1 {{(C1) expected a box [row / 64, panel] below [1, 2], got [0]}}
  moa_gpu.copy_in %map[%n, %n, %n] to %t[0], %full : !llvm.ptr, !moa_gpu.shared<64x128xf16>
  return
}

// -----

func.func @get_c1(%r: !moa_gpu.ring<2 x !moa_gpu.shared<64x128xf16>>, %n: i32) {
  // expected-error @+1 {{(C1) expected the ring's tile '!moa_gpu.shared<64x128xf16>', got '!moa_gpu.shared<64x64xf16>'}}
  %t = moa_gpu.get %r[%n] : !moa_gpu.ring<2 x !moa_gpu.shared<64x128xf16>> -> !moa_gpu.shared<64x64xf16>
  return
}

// -----

func.func @order_fence_c1(%r: !moa_gpu.ring<2 x !moa_gpu.shared<64x128xf16>>, %n: i32) {
  // expected-note @+1 {{it was released here; put the fence before}}
  moa_gpu.release %r[%n] : !moa_gpu.ring<2 x !moa_gpu.shared<64x128xf16>>
  // expected-error @+1 {{(C1) expected a stage that is held}}
  moa_gpu.order_fence %r[%n] : !moa_gpu.ring<2 x !moa_gpu.shared<64x128xf16>>
  return
}

// -----

func.func @copy_out_c1(%t: !moa_gpu.shared<64x128xf16>, %n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C1) expected in moa_gpu.one_thread: each thread would copy once more}}
  moa_gpu.copy_out %t[%n] to %map[%n, %n] : !moa_gpu.shared<64x128xf16>, !llvm.ptr
  return
}

// -----

func.func @copy_out_wait_c1() {
  // expected-error @+1 {{(C1) expected in moa_gpu.one_thread}}
  moa_gpu.copy_out_wait
  return
}
