//===- Passes.td - Passes on the moa dialect ---------------*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_TRANSFORMS_PASSES_TD
#define MOA_TRANSFORMS_PASSES_TD

include "mlir/Pass/PassBase.td"

def MoaApplyPlan : Pass<"moa-apply-plan", "::mlir::ModuleOp"> {
  let summary = "Give each layer the windows of a plan";
  let description = [{
    Reads a plan file and writes its rules as windows on the operations that
    attend, by the `moa.layer` of their function. The module gets the plan's
    identity as `moa.plan_id`. Layer and head counts must agree with the plan's.

    Before: `%o = moa.attention %q, %c : ...`

    After:
    ```mlir
    %o = moa.attention %q, %c
      window(<[3 x (-512 + N), 6 x (0.75 * N)],
             sink = 64, block = 64, min = 128, length = request>) : ...
    ```
  }];
  let options = [
    Option<"plan", "plan", "std::string", /*default=*/"",
           "plan file: moa-plan/1, or the published two keys">
  ];
  let dependentDialects = ["::moa::MoaDialect"];
}

def MoaLintPlan : Pass<"moa-lint-plan", "::mlir::ModuleOp"> {
  let summary = "Remark on what windows cost, warn where they gain nothing";
  let description = [{
    At `length` tokens, in closed form: for each operation that attends, KV
    bytes against dense, the largest span of each KV head, and useful FLOPs
    against dense (4 * head size * visible pairs). Warns about a layer that
    sees everything in spite of a window and about rules that the minimum span
    decides. Changes nothing.
  }];
  let options = [
    Option<"length", "length", "int64_t", /*default=*/"4096",
           "length N in tokens">
  ];
}

def MoaResolveSpans : Pass<"moa-resolve-spans"> {
  let summary = "Evaluate span rules at a known length";
  let description = [{
    Replaces each rule by the constant it has at `length`, as the length rule
    `request` means it. Plans with length rule `row` are left alone, as their
    rows each have a length of their own.

    Before: `window(<[9 x (-512 + N)], ...>)`, length 2048

    After: `window(<[9 x (1536)], ...>)`
  }];
  let options = [
    Option<"length", "length", "int64_t", /*default=*/"0",
           "length N in tokens; 0 leaves the rules alone">
  ];
}

def MoaAssignCacheLayout : Pass<"moa-assign-cache-layout"> {
  let summary = "Decide the pages of each KV head";
  let description = [{
    Writes `layout` on each operation that attends: page size in tokens and
    bytes, and for each KV head the query heads whose rules can be the widest of
    the group at some length up to the model's longest. With `length`, the pages
    held after that many tokens too.
  }];
  let options = [
    Option<"length", "length", "int64_t", /*default=*/"0",
           "tokens to count pages for; 0 for none">
  ];
}

def MoaSelectTileConfig : Pass<"moa-select-tile-config"> {
  let summary = "Choose tile shapes";
  let description = [{
    Writes `tile` on each operation that attends; convert-moa-to-tile consumes
    it. Chunks take 64 query rows along lanes on a CPU, 128 rows on a GPU, and
    there 128 keys at a time where shared memory has room for them. A single row
    takes all heads of a group and runs along the head size.
  }];
  let options = [
    Option<"chip", "chip", "std::string", /*default=*/"\"\"",
           "GPU to choose for (sm_90a, sm_80); empty for a CPU">
  ];
}

def MoaVerifyForm : Pass<"moa-verify-form"> {
  let summary = "Check the form that convert-moa-to-tile takes";
  let description = [{
    Every operation that attends stands in a function with `moa.layer` and has
    window, layout and tile choice. Notes name the pass that sets what is
    missing. Changes nothing.
  }];
}

#endif // MOA_TRANSFORMS_PASSES_TD
