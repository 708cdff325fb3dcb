// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --canonicalize --cse | FileCheck %s --implicit-check-not=moa_gpu.

// The templates of inline PTX for rings and asynchronous products, each to the
// letter: accumulators are tied to their operands, and memory is clobbered, so
// that nothing moves across. Those of single warps stand in warps.mlir and, of
// codes, in codes.mlir. There is no other inline PTX.
//
// RUN: grep -rlE "InlineAsm(Op|::)|asm *(volatile)? *\(" %moa_source/lib %moa_source/runtime/include | FileCheck --check-prefix=ONE --implicit-check-not=/ %s
// ONE: {{.*}}/lib/Conversion/GPUToNVVM/InlinePTX.cpp

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>

// CHECK-LABEL: llvm.func @kernel
llvm.func @kernel(%map: !llvm.ptr, %n: i32, %p: vector<4xi32>, %o: vector<32xf32>) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 168, rows = 64, keys = 64>} {
  %r = moa_gpu.ring readers = 1 : !r
  moa_gpu.roles warpgroups = 1, registers = 24, 240 producer {
    // The wait for a barrier spins; the label is the asm's own.
    // CHECK: nvvm.setmaxregister {{ *}}decrease 24
    // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1; @!done bra again; }", "r,r,~{memory}" %{{.*}}, %{{.*}} : (i32, i32) -> ()
    moa_gpu.put %r[%n] : !r {
    ^bb0(%t: !t, %full: !moa_gpu.barrier):
      moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    }
  } consumer {
  ^bb0(%group: i32):
    // CHECK: nvvm.setmaxregister {{ *}}increase 240
    // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1; @!done bra again; }", "r,r,~{memory}" %[[FULL:.*]], %[[PARITY:.*]] : (i32, i32) -> ()
    %t = moa_gpu.get %r[%n] : !r -> !t
    // From zero (the first has scale-d 0), 32 bytes along the rows a step.
    // CHECK: %[[S:.*]] = llvm.inline_asm has_side_effects asm_dialect = att "{ .reg .b64 da, db; wgmma.fence.sync.aligned; add.s64 da, $4, 0; add.s64 db, $5, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {$0, $1, $2, $3}, da, db, 0, 1, 1, 0, 0; add.s64 da, $4, 2; add.s64 db, $5, 2; wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {$0, $1, $2, $3}, da, db, 1, 1, 1, 0, 0; wgmma.commit_group.sync.aligned; }", "=f,=f,=f,=f,l,l,~{memory}" %{{.*}}, %{{.*}} : (i64, i64) -> !llvm.struct<(f32, f32, f32, f32)>
    %s = moa_gpu.scores %t[%group], %t keys 8 depth 32 : !t, !t -> !moa_gpu.async<vector<4xf32>>
    // CHECK-NEXT: %[[S0:.*]] = llvm.extractvalue %[[S]][0]
    // A in registers, B transposed.
    // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "{ .reg .b64 db; wgmma.fence.sync.aligned; add.s64 db, $68, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {$0, $1, $2, {{.*}}, $31}, {$64, $65, $66, $67}, db, 1, 1, 1, 1; wgmma.commit_group.sync.aligned; }", "=f,{{.*}},=f,0,1,2,{{.*}},31,r,r,r,r,l,~{memory}" %
    %a = moa_gpu.accumulate %p, %t, %o : vector<4xi32>, !t, vector<32xf32>
    // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "wgmma.wait_group.sync.aligned 1;", "=f,=f,=f,=f,0,1,2,3,~{memory}" %[[S0]], %{{.*}}, %{{.*}}, %{{.*}} : (f32, f32, f32, f32) -> !llvm.struct<(f32, f32, f32, f32)>
    %x = moa_gpu.wait %s pending 1 : !moa_gpu.async<vector<4xf32>>
    // The order fence is the wait for the stage once more.
    // CHECK-NEXT: llvm.inline_asm has_side_effects asm_dialect = att "{ .reg .pred done; again: mbarrier.try_wait.{{.*}} %[[FULL]], %[[PARITY]] :
    moa_gpu.order_fence %r[%n] : !r
    // CHECK-NEXT: llvm.inline_asm has_side_effects asm_dialect = att "wgmma.wait_group.sync.aligned 0;", "=f,{{.*}},=f,0,1,{{.*}},31,~{memory}" %
    %y = moa_gpu.wait %a pending 0 : !moa_gpu.async<vector<32xf32>>
    // One thread of the warpgroup gives the stage back.
    // CHECK: %[[LANE:.*]] = arith.andi %{{.*}}, %c127_i32
    // CHECK-NEXT: %[[FIRST:.*]] = arith.cmpi eq, %[[LANE]], %c0_i32
    // CHECK-NEXT: scf.if %[[FIRST]] {
    // CHECK: llvm.inline_asm has_side_effects asm_dialect = att "mbarrier.arrive.shared::cta.b64 _, [$0];", "r,~{memory}" %{{.*}} : (i32) -> ()
    moa_gpu.release %r[%n] : !r
  }
  llvm.return
}
