// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --split-input-file | FileCheck %s --implicit-check-not=moa_gpu.

// Use n of a ring of S stages goes through stage n % S; readers wait for the end
// of phase n / S of the full barrier, the writer for the one before of the empty
// barrier, so that its first round passes at once.

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<1 x !t>
// CHECK-LABEL: llvm.func @one
// CHECK-SAME: %[[N:[a-z0-9]+]]: i32)
llvm.func @one(%map: !llvm.ptr, %n: i32) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 0, keys = 0>} {
  %r = moa_gpu.ring readers = 1 : !r
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    // CHECK: nvvm.elect.sync
    // CHECK: %[[PHASE:.*]] = arith.andi %[[N]], %{{.*}} : i32
    // CHECK: %[[FREE:.*]] = arith.xori %[[PHASE]], %{{.*}} : i32
    // CHECK: llvm.getelementptr %{{.*}}[%{{.*}}]
    // CHECK: try_wait.parity{{.*}} %{{.*}}, %[[FREE]] :
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    // CHECK: increase 240
    // CHECK: %[[PHASE:.*]] = arith.andi %[[N]], %{{.*}} : i32
    // CHECK: try_wait.parity{{.*}} %{{.*}}, %[[PHASE]] :
    %t = moa_gpu.get %r[%n] : !r -> !t
    moa_gpu.release %r[%n] : !r
  }
  llvm.return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
// CHECK-LABEL: llvm.func @two
// CHECK-SAME: %[[N:[a-z0-9]+]]: i32)
llvm.func @two(%map: !llvm.ptr, %n: i32) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 0, keys = 0>} {
  %r = moa_gpu.ring readers = 1 : !r
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    // CHECK: nvvm.elect.sync
    // CHECK: %[[STAGE:.*]] = arith.andi %[[N]], %c1{{.*}} : i32
    // CHECK: %[[ROUND:.*]] = arith.shrui %[[N]], %c1{{.*}} : i32
    // CHECK: %[[PHASE:.*]] = arith.andi %[[ROUND]], %c1{{.*}} : i32
    // CHECK: %[[FREE:.*]] = arith.xori %[[PHASE]], %c1{{.*}} : i32
    // CHECK: try_wait.parity{{.*}} %{{.*}}, %[[FREE]] :
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    // CHECK: increase 240
    // CHECK: %[[STAGE:.*]] = arith.andi %[[N]], %c1{{.*}} : i32
    // CHECK: %[[PLACE:.*]] = arith.shli %[[STAGE]], %c3{{.*}} : i32
    // CHECK: %[[ROUND:.*]] = arith.shrui %[[N]], %c1{{.*}} : i32
    // CHECK: %[[PHASE:.*]] = arith.andi %[[ROUND]], %c1{{.*}} : i32
    // CHECK: try_wait.parity{{.*}} %{{.*}}, %[[PHASE]] :
    %t = moa_gpu.get %r[%n] : !r -> !t
    moa_gpu.release %r[%n] : !r
  }
  llvm.return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<3 x !t>
// CHECK-LABEL: llvm.func @three
// CHECK-SAME: %[[N:[a-z0-9]+]]: i32)
llvm.func @three(%map: !llvm.ptr, %n: i32) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 0, keys = 0>} {
  %r = moa_gpu.ring readers = 1 : !r
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    // CHECK: nvvm.elect.sync
    // CHECK: %[[STAGE:.*]] = arith.remui %[[N]], %c3{{.*}} : i32
    // CHECK: %[[ROUND:.*]] = arith.divui %[[N]], %c3{{.*}} : i32
    // CHECK: %[[PHASE:.*]] = arith.andi %[[ROUND]], %c1{{.*}} : i32
    // CHECK: %[[FREE:.*]] = arith.xori %[[PHASE]], %c1{{.*}} : i32
    // CHECK: try_wait.parity{{.*}} %{{.*}}, %[[FREE]] :
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    // CHECK: increase 240
    // CHECK: arith.remui %[[N]], %c3{{.*}} : i32
    // CHECK: %[[ROUND:.*]] = arith.divui %[[N]], %c3{{.*}} : i32
    // CHECK: %[[PHASE:.*]] = arith.andi %[[ROUND]], %c1{{.*}} : i32
    // CHECK: try_wait.parity{{.*}} %{{.*}}, %[[PHASE]] :
    %t = moa_gpu.get %r[%n] : !r -> !t
    moa_gpu.release %r[%n] : !r
  }
  llvm.return
}
