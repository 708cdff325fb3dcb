// Tiles fetched by all threads: printed as parsed.
// RUN: moa-opt %s | moa-opt | FileCheck %s

!tile = !moa_gpu.shared<64x128xbf16>
!one = !moa_gpu.buffers<1 x !tile>
!four = !moa_gpu.buffers<4 x !tile>

// CHECK-LABEL: llvm.func @fetches(
llvm.func @fetches(%p: !llvm.ptr<1>, %stride: i64, %n: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  %zero = arith.constant 0 : i32
  %one = arith.constant 1 : i32
  // CHECK: %[[Q:.*]] = moa_gpu.buffers : <1 x !moa_gpu.shared<64x128xbf16>>
  %q = moa_gpu.buffers : !one
  // CHECK: %[[B:.*]] = moa_gpu.buffers : <4 x !moa_gpu.shared<64x128xbf16>>
  %b = moa_gpu.buffers : !four
  // CHECK: moa_gpu.fetch %{{.*}} stride %{{.*}} rows %{{.*}} to %{{.*}} columns 80 into %[[Q]][%{{.*}}] if %{{.*}} : <1 x !moa_gpu.shared<64x128xbf16>>
  moa_gpu.fetch %p stride %stride rows %zero to %n columns 80 into %q[%zero] if %c : !one
  moa_gpu.fetch %p stride %stride rows %zero to %n columns 128 into %b[%zero] if %c : !four
  // CHECK: moa_gpu.await %[[Q]][%{{.*}}] pending 1 : <1 x !moa_gpu.shared<64x128xbf16>> -> <64x128xbf16>
  %t = moa_gpu.await %q[%zero] pending 1 : !one -> !tile
  scf.for %i = %zero to %n step %one : i32 {
    // CHECK: moa_gpu.await %[[B]][%{{.*}}] pending 2 : <4 x !moa_gpu.shared<64x128xbf16>> -> <64x128xbf16>
    %k = moa_gpu.await %b[%i] pending 2 : !four -> !tile
    moa_gpu.fetch %p stride %stride rows %zero to %n columns 128 into %b[%one] if %c : !four
  }
  llvm.return
}

// CHECK-LABEL: llvm.func @fetches_f32(
llvm.func @fetches_f32(%p: !llvm.ptr<1>, %stride: i64, %n: i32, %c: i1) attributes {
    moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 64, keys = 64>} {
  // CHECK: moa_gpu.buffers : <2 x !moa_gpu.shared<16x96xf32>>
  %b = moa_gpu.buffers : !moa_gpu.buffers<2 x !moa_gpu.shared<16x96xf32>>
  // CHECK: moa_gpu.fetch {{.*}} columns 84 into %{{.*}} : <2 x !moa_gpu.shared<16x96xf32>>
  moa_gpu.fetch %p stride %stride rows %n to %n columns 84 into %b[%n] if %c : !moa_gpu.buffers<2 x !moa_gpu.shared<16x96xf32>>
  llvm.return
}
