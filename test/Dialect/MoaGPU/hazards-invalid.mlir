// RUN: moa-opt %s --split-input-file --verify-diagnostics

// What the hardware leaves undefined: registers of products in flight, stages
// given back too early. Each function is right but for the line at fault.

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @wait_c1(%product: !a) {
  // expected-error @+2 {{(C1) expected a product that was started in the same block}}
  // expected-note @-2 {{a product must not cross a block}}
  %s = moa_gpu.wait %product pending 0 : !a
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @wait_c2_more(%q: !t, %r: i32) {
  %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  %b = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  // expected-error @+1 {{(C2) expected pending 1, the products started later and in flight, got 2}}
  %s = moa_gpu.wait %a pending 2 : !a
  %u = moa_gpu.wait %b pending 0 : !a
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @wait_c2_fewer(%q: !t, %r: i32) {
  %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  %b = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  // expected-error @+1 {{(C2) expected pending 1, the products started later and in flight, got 0}}
  %s = moa_gpu.wait %a pending 0 : !a
  %u = moa_gpu.wait %b pending 0 : !a
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @wait_c3(%q: !t, %r: i32) {
  // expected-note @+1 {{wait for this one first}}
  %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  %b = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  // expected-error @+1 {{(C3) expected no older product in flight}}
  %u = moa_gpu.wait %b pending 0 : !a
  %s = moa_gpu.wait %a pending 0 : !a
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @wait_c4(%ring: !moa_gpu.ring<2 x !t>, %q: !t, %n: i32) {
  %k = moa_gpu.get %ring[%n] : !moa_gpu.ring<2 x !t> -> !t
  %a = moa_gpu.scores %q[%n], %k keys 64 depth 64 : !t, !t -> !a
  // expected-note @+1 {{it is released here, and may be overwritten}}
  moa_gpu.release %ring[%n] : !moa_gpu.ring<2 x !t>
  // expected-error @+1 {{(C4) expected the stages that the product reads to be held until here}}
  %s = moa_gpu.wait %a pending 0 : !a
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @scores_c4_never_waited_for(%q: !t, %r: i32) {
  // expected-error @+1 {{(C4) expected one use, a moa_gpu.wait in the same block}}
  %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @scores_c4_twice(%q: !t, %r: i32) {
  // expected-error @+1 {{(C4) expected one use, a moa_gpu.wait in the same block}}
  %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  %s = moa_gpu.wait %a pending 0 : !a
  %u = moa_gpu.wait %a pending 0 : !a
  return
}

// -----

// Accumulators over the back edge of a loop, in flight.
!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @accumulate_c4_back_edge(%p: vector<16xi32>, %v: !t, %o: vector<32xf32>, %n: i32, %first: !a) {
  %last = scf.for %i = %n to %n step %n iter_args(%carried = %first) -> (!a) : i32 {
    // expected-error @+1 {{(C4) expected one use, a moa_gpu.wait in the same block}}
    %a = moa_gpu.accumulate %p, %v, %o : vector<16xi32>, !t, vector<32xf32>
    scf.yield %a : !a
  }
  return
}

// -----

// A wait under a branch that the product is not under.
!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @scores_c4_wait_in_branch(%q: !t, %r: i32, %c: i1) {
  // expected-error @+1 {{(C4) expected one use, a moa_gpu.wait in the same block}}
  %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
  scf.if %c {
    %s = moa_gpu.wait %a pending 0 : !a
  }
  return
}
