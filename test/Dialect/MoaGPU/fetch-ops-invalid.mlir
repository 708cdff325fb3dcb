// RUN: moa-opt %s --split-input-file --verify-diagnostics

!tile = !moa_gpu.shared<64x128xbf16>
// expected-error @+1 {{(C1) expected 1, 2 or 4 places, got 3}}
func.func private @places(!moa_gpu.buffers<3 x !tile>)

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @nested(%n: i32) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %one = arith.constant 1 : i32
  scf.for %i = %one to %n step %one : i32 {
    // expected-error @+1 {{(C1) expected in the entry block of a kernel}}
    %b = moa_gpu.buffers : !one
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @roles() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 64, registers = 128, rows = 1, keys = 64>} {
  // expected-error @+1 {{(C2) expected a kernel without roles}}
  %b = moa_gpu.buffers : !one
  // expected-note @+1 {{these are; a producer fills rings}}
  moa_gpu.warp_roles consumers = 1 producer {
    %c = arith.constant 0 : i32
  } consumer {
  ^bb0(%warp: i32):
  }
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @threads() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 96, registers = 128, rows = 64, keys = 64>} {
  // expected-error @+1 {{(C3) expected a launch with 64, 128, 256 or 512 threads, at most 8 for each of 64 rows, got 96}}
  %b = moa_gpu.buffers : !one
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @no_launch() {
  // expected-error @+1 {{(C3) expected a launch with 64, 128, 256 or 512 threads, at most 8 for each of 64 rows, got 0}}
  %b = moa_gpu.buffers : !one
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @columns_0(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !one
  // expected-error @+1 {{(C1) expected columns to be a multiple of 8 from 8 to 128, got 0}}
  moa_gpu.fetch %p stride %s rows %n to %n columns 0 into %b[%n] if %c : !one
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @columns_84(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !one
  // expected-error @+1 {{(C1) expected columns to be a multiple of 8 from 8 to 128, got 84}}
  moa_gpu.fetch %p stride %s rows %n to %n columns 84 into %b[%n] if %c : !one
  llvm.return
}

// -----

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>
llvm.func @columns_136(%p: !llvm.ptr<1>, %s: i64, %n: i32, %m: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !one
  // expected-error @+1 {{(C1) expected columns to be a multiple of 8 from 8 to 128, got 136}}
  moa_gpu.fetch %p stride %s rows %n to %n columns 136 into %b[%n] if %c : !one
  llvm.return
}

// -----

!one = !moa_gpu.buffers<1 x !moa_gpu.shared<64x96xf32>>
llvm.func @columns_f32(%p: !llvm.ptr<1>, %s: i64, %n: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %b = moa_gpu.buffers : !one
  // expected-error @+1 {{(C1) expected columns to be a multiple of 4 from 4 to 96, got 82}}
  moa_gpu.fetch %p stride %s rows %n to %n columns 82 into %b[%n] if %c : !one
  llvm.return
}

// -----

llvm.func @rows_f32() attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 128, rows = 64, keys = 64>} {
  // expected-error @+1 {{(C3) expected a launch with 64, 128, 256 or 512 threads, at most 8 for each of 16 rows, got 256}}
  %b = moa_gpu.buffers : !moa_gpu.buffers<2 x !moa_gpu.shared<16x96xf32>>
  llvm.return
}
