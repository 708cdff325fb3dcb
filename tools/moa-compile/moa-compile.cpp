//===- moa-compile.cpp - Plans to artifacts, from the command line --------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Reads the files that the options name, calls the compile driver, writes the
// result. Exit status: 0, 1 for refused input, 2 for wrong usage.
//
//===----------------------------------------------------------------------===//

#include "Options.h"

#include "moa/Plan/Model.h"
#include "moa/Target/Artifact.h"

#include "llvm/Support/InitLLVM.h"

using namespace moa;

/// Prints an error as `file:line: error: what` and `file:line: note: cure`.
static int refuse(llvm::Error error) {
  llvm::handleAllErrors(
      std::move(error),
      [](const plan::PlanError &refusal) {
        std::string where = refusal.file;
        for (unsigned number : {refusal.line, refusal.column})
          if (number)
            where += ":" + std::to_string(number);
        llvm::errs() << where << ": error: "
                     << (refusal.key.empty() ? "" : refusal.key + ": ")
                     << refusal.message << '\n';
        if (!refusal.cure.empty())
          llvm::errs() << where << ": note: " << refusal.cure << '\n';
      },
      [](const llvm::ErrorInfoBase &other) {
        llvm::errs() << other.message() << '\n';
      });
  return kRefused;
}

static int run(const Arguments &arguments) {
  llvm::Expected<plan::Plan> plan = plan::loadPlan(arguments.plan);
  if (!plan)
    return refuse(plan.takeError());
  for (const std::string &warning : plan->warnings)
    llvm::errs() << arguments.plan << ": warning: " << warning << '\n';
  llvm::Expected<plan::ModelShape> shape = plan::loadModel(arguments.model);
  if (!shape)
    return refuse(shape.takeError());
  if (arguments.maxLength)
    shape->maxLength = arguments.maxLength;
  if (arguments.options.layer && *arguments.options.layer >= shape->layers)
    return refuse("--layer",
                  "expected 0 to " + llvm::Twine(shape->layers - 1) + ", got " +
                      llvm::Twine(*arguments.options.layer),
                  "name a layer of the model");

  llvm::Expected<CompileResult> result = compile(
      *plan, *shape, arguments.options, arguments.plan, arguments.model);
  if (!result)
    return refuse(result.takeError());
  for (const std::string &warning : result->warnings)
    llvm::errs() << "moa-compile: warning: " << warning << '\n';
  for (const std::string &remark : result->stats.remarks)
    llvm::errs() << "moa-compile: remark: " << remark << '\n';
  bool ptxAlone = llvm::any_of(result->stats.kernels, [](auto &kernel) {
    return findGpuChip(kernel.chip) && !kernel.registers;
  });
  if (ptxAlone && !arguments.ptxRemark.empty())
    llvm::errs() << "moa-compile: remark: GPU kernels are left as PTX: "
                 << arguments.ptxRemark << '\n';
  if (llvm::Error error = writeFileAtomically(arguments.output, result->bytes))
    return refuse(arguments.output, llvm::toString(std::move(error)),
                  "name a file in a folder that can be written to");
  if (arguments.stats)
    printStats(result->stats, llvm::outs());
  return 0;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  Arguments arguments;
  if (std::optional<int> status =
          parseArguments(llvm::ArrayRef<const char *>(argv, argc), arguments))
    return *status;
  return run(arguments);
}
