// RUN: moa-opt %s --moa-to-cpu="chip=x86-64-v3" | FileCheck %s
// RUN: moa-compile %plans/smollm2-moa.json --model layers=30,q_heads=9,kv_heads=3,head_dim=64 --dtype bf16 --emit moa | moa-opt --moa-to-cpu | FileCheck %s --check-prefix=PLAN

// The milestone before the target: kernels in the LLVM dialect alone, which say
// how much scratch they need.

// CHECK: moa.launch @prefill_d128_f32
// CHECK: module @prefill_d128_f32 attributes {moa.kernel =
// CHECK: llvm.func @prefill_d128_f32(%{{.*}}: !llvm.ptr{{.*}}, %{{.*}}: !llvm.ptr{{.*}}) attributes {{{.*}}moa.scratch_bytes = {{[1-9]}}
// CHECK-NOT: moa_tile.
// CHECK-NOT: {{(^| )"?(vector|arith|scf|cf|func)\.}}
// CHECK: llvm.return

// PLAN: func.func @layer_29_decode
// PLAN: moa.launch @decode_d64_g3_bf16
// PLAN: llvm.func @append_d64_bf16
// PLAN: llvm.func @prefill_d64_bf16
// PLAN: llvm.func @decode_d64_g3_bf16
// PLAN-NOT: {{(^| )"?(vector|arith|scf|cf)\.}}

#window = #moa.window<[2 x (0.5 * N), 2 x (512)], sink = 64, block = 64, min = 128, length = row>
module attributes {moa.model = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 128, dtype = f32, max_length = 8192>} {
  func.func @layer_0_prefill(%q: tensor<?x4x128xf32>, %cache: !moa.cache<2x128xf32>) -> tensor<?x4x128xf32> attributes {moa.layer = 0 : i64} {
    %o = moa.attention %q, %cache window(#window) : tensor<?x4x128xf32>, !moa.cache<2x128xf32>
    return %o : tensor<?x4x128xf32>
  }
}
