// RUN: moa-opt %s --moa-to-gpu="chip=sm_90a" | FileCheck %s
// RUN: moa-opt %s --moa-select-tile-config=chip=sm_90a --moa-assign-cache-layout --convert-moa-to-tile | moa-opt --pass-pipeline="builtin.module(builtin.module(moa-tile-to-gpu{chip=sm_90a}))" | FileCheck %s
// RUN: moa-compile %plans/smollm2-moa.json --model layers=30,q_heads=9,kv_heads=3,head_dim=64 --phase prefill,append --emit moa | moa-opt --moa-to-gpu | FileCheck %s --check-prefix=PLAN
// RUN: not moa-opt %s --moa-to-gpu="chip=sm_75" 2>&1 | FileCheck %s --check-prefix=UNKNOWN

// Kernels in the LLVM and NVVM dialects alone, which say how they are launched.

// CHECK: moa.launch @prefill_d128_bf16
// CHECK: module @prefill_d128_bf16 attributes {moa.kernel =
// CHECK: llvm.mlir.global external @shared() {addr_space = 3 : i32, alignment = 1024 : i64} : !llvm.array<0 x i8>
// CHECK: llvm.func @prefill_d128_bf16({{.*}}) attributes {moa.register_budget = 168 : i64, moa.shared_bytes = 196672 : i64, moa.threads = 384 : i64, moa.tile_keys = 128 : i64, moa.tile_rows = 128 : i64, nvvm.kernel, nvvm.maxnreg = 168 : i32, nvvm.reqntid = array<i32: 384, 1, 1>}
// CHECK-NOT: {{(moa_tile|moa_gpu)\.}}
// CHECK-NOT: {{(^| )"?(vector|arith|scf|cf|func)\.}}
// CHECK: llvm.return

// PLAN: func.func @layer_29_prefill
// PLAN: moa.launch @prefill_d64_bf16
// PLAN: llvm.func @append_d64_bf16
// PLAN: llvm.func @prefill_d64_bf16

// UNKNOWN: unknown GPU 'sm_75', expected one of sm_90a, sm_80

#window = #moa.window<[2 x (0.5 * N), 2 x (512)], sink = 64, block = 64, min = 128, length = row>
module attributes {moa.model = #moa.model<layers = 1, q_heads = 4, kv_heads = 2, head_dim = 128, dtype = bf16, max_length = 8192>} {
  func.func @layer_0_prefill(%q: tensor<?x4x128xbf16>, %cache: !moa.cache<2x128xbf16>) -> tensor<?x4x128xbf16> attributes {moa.layer = 0 : i64} {
    %o = moa.attention %q, %cache window(#window) : tensor<?x4x128xbf16>, !moa.cache<2x128xbf16>
    return %o : tensor<?x4x128xbf16>
  }
}
