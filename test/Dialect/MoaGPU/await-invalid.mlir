// RUN: moa-opt %s --split-input-file --verify-diagnostics

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @younger(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !four
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%n] if %c : !four
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  // expected-error @+1 {{(C1) expected pending 1, the fetches since that of this use, got 2}}
  %t = moa_gpu.await %b[%n] pending 2 : !four -> !tile
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @constants(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !one
  %x = arith.constant 3 : i32
  %y = arith.constant 3 : i32
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%x] if %c : !one
  // expected-error @+1 {{(C1) expected pending 0, the fetches since that of this use, got 1}}
  %t = moa_gpu.await %b[%y] pending 1 : !one -> !tile
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @carried(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !four
  // expected-error @+1 {{(C2) expected a fetch of this use before it in the block, or two places or more and as many pending, less 2; got 4 places and pending 3}}
  %t = moa_gpu.await %b[%n] pending 3 : !four -> !tile
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @other_use(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !one
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !one
  // expected-error @+1 {{(C2) expected a fetch of this use before it in the block, or two places or more and as many pending, less 2; got 1 places and pending 0}}
  %t = moa_gpu.await %b[%n] pending 0 : !one -> !tile
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @no_refill(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !four
  // expected-error @+1 {{(C3) expected one fetch into the buffers before the next await of them, got 0}}
  %t = moa_gpu.await %b[%n] pending 2 : !four -> !tile
  %u = moa_gpu.await %b[%m] pending 2 : !four -> !tile
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%n] if %c : !four
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @two_refills(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !four
  // expected-error @+1 {{(C3) expected one fetch into the buffers before the next await of them, got 2}}
  %t = moa_gpu.await %b[%n] pending 2 : !four -> !tile
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @tile(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !four
  // expected-error @+1 {{(C4) expected the buffers' tile '!moa_gpu.shared<64x128xbf16>', got '!moa_gpu.shared<64x64xbf16>'}}
  %t = moa_gpu.await %b[%n] pending 2 : !four -> !moa_gpu.shared<64x64xbf16>
  moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @branch(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !four
  scf.if %c {
    // expected-error @+1 {{(C5) expected under no branch: all threads of the block meet here}}
    %t = moa_gpu.await %b[%n] pending 2 : !four -> !tile
    moa_gpu.fetch %p stride %s rows %n to %n columns 128 into %b[%m] if %c : !four
  }
  llvm.return
}
