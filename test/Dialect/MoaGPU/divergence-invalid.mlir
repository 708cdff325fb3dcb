// RUN: moa-opt %s --split-input-file --verify-diagnostics

// A warpgroup starts products as a whole: what decides whether they run must be
// the same in all of its threads.

!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @scores_c5_lane(%q: !t, %r: i32) {
  // expected-note @+1 {{its condition depends on this, which differs by thread}}
  %lane = moa_gpu.lane_row
  %c = arith.cmpi slt, %lane, %r : i32
  scf.if %c {
    // expected-error @+1 {{(C5) expected under no branch or loop that may go differently in different threads}}
    %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
    %s = moa_gpu.wait %a pending 0 : !a
  }
  return
}

// -----

// A warp's number is no warpgroup's.
!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @scores_c5_warp(%q: !t, %r: i32) {
  // expected-note @+1 {{its condition depends on this, which differs by thread}}
  %warp = moa_gpu.warp
  %c = arith.cmpi slt, %warp, %r : i32
  scf.if %c {
    // expected-error @+1 {{(C5) expected under no branch or loop that may go differently in different threads}}
    %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
    %s = moa_gpu.wait %a pending 0 : !a
  }
  return
}

// -----

// A bound of a loop around, from what a thread holds of a fragment.
!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @accumulate_c5_bound(%p: vector<16xi32>, %v: !t, %o: vector<32xf32>, %n: i32, %f: vector<32xf32>) {
  // expected-note @+1 {{its condition depends on this}}
  %high = moa_gpu.row_reduce max %f : vector<32xf32>
  %x = vector.extract %high[0] : f32 from vector<2xf32>
  %end = arith.fptosi %x : f32 to i32
  scf.for %i = %n to %end step %n : i32 {
    scf.for %j = %n to %n step %n : i32 {
      // expected-error @+1 {{(C5) expected under no branch or loop}}
      %a = moa_gpu.accumulate %p, %v, %o : vector<16xi32>, !t, vector<32xf32>
      %s = moa_gpu.wait %a pending 0 : !a
    }
  }
  return
}

// -----

// Through what a loop carries and what a branch yields.
!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @scores_c5_carried(%q: !t, %r: i32) {
  // expected-note @+1 {{its condition depends on this}}
  %thread = nvvm.read.ptx.sreg.tid.x : i32
  %last = scf.for %i = %r to %r step %r iter_args(%from = %r) -> (i32) : i32 {
    %c = arith.cmpi slt, %from, %r : i32
    %next = scf.if %c -> (i32) {
      scf.yield %thread : i32
    } else {
      scf.yield %r : i32
    }
    scf.if %c {
      // expected-error @+1 {{(C5) expected under no branch or loop}}
      %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
      %s = moa_gpu.wait %a pending 0 : !a
    }
    scf.yield %next : i32
  }
  return
}

// -----

// Right: the branch depends on a number that all share, though the loop carries
// a fragment beside it.
!t = !moa_gpu.shared<64x64xf16>
!a = !moa_gpu.async<vector<32xf32>>
func.func @uniform(%q: !t, %r: i32, %f: vector<32xf32>) {
  %lane = moa_gpu.lane_row
  %last:3 = scf.for %i = %r to %r step %r iter_args(%n = %r, %o = %f, %l = %lane) -> (i32, vector<32xf32>, i32) : i32 {
    %c = arith.cmpi slt, %n, %i : i32
    %next = scf.if %c -> (vector<32xf32>) {
      %a = moa_gpu.scores %q[%r], %q keys 64 depth 64 : !t, !t -> !a
      %s = moa_gpu.wait %a pending 0 : !a
      scf.yield %s : vector<32xf32>
    } else {
      scf.yield %o : vector<32xf32>
    }
    %m = arith.addi %n, %i : i32
    scf.yield %m, %next, %l : i32, vector<32xf32>, i32
  }
  return
}
