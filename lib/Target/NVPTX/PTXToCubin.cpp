//===- PTXToCubin.cpp - Running ptxas -------------------------------------===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Runs ptxas on temporary files and turns what it says into a checked cubin or
// an error. No shell is involved, and nothing stays behind.
//
//===----------------------------------------------------------------------===//

#include "moa/Target/NVPTX.h"

#include "Execute.h"
#include "llvm/Object/ELF.h"
#include "llvm/Support/MemoryBuffer.h"

using namespace moa;
using llvm::StringRef;

/// Bytes of code sections over the size of an instruction.
static llvm::Expected<uint64_t> countInstructions(StringRef cubin) {
  constexpr uint64_t kInstructionBytes = 16;
  auto file = llvm::object::ELFFile<llvm::object::ELF64LE>::create(cubin);
  if (!file)
    return file.takeError();
  auto sections = file->sections();
  if (!sections)
    return sections.takeError();
  uint64_t bytes = 0;
  for (const auto &section : *sections)
    if (section.sh_flags & llvm::ELF::SHF_EXECINSTR)
      bytes += section.sh_size;
  return bytes / kInstructionBytes;
}

llvm::Expected<Cubin> moa::assemblePTX(StringRef ptx,
                                       const GpuKernelFacts &facts,
                                       const GpuChip &chip,
                                       const Ptxas &ptxas) {
  TemporaryFile source("ptx"), target("cubin");
  for (const TemporaryFile *file : {&source, &target})
    if (file->error)
      return llvm::createStringError("cannot create a temporary file: " +
                                     file->error.message());
  std::error_code error;
  llvm::raw_fd_ostream os(source.path, error);
  os << ptx;
  os.close();
  if (error || os.has_error()) {
    error = error ? error : os.error();
    os.clear_error();
    return llvm::createStringError("cannot write '" + source.path +
                                   "': " + error.message());
  }

  std::string arch = ("-arch=" + chip.name).str();
  llvm::Expected<Answer> answer =
      execute(ptxas.path, {arch, kPtxasLevel, "-v", "--warn-on-spills",
                           source.path, "-o", target.path});
  if (!answer)
    return answer.takeError();
  // The file's name says nothing once the file is gone.
  for (size_t at;
       (at = answer->text.find(source.path.c_str())) != std::string::npos;)
    answer->text.replace(at, source.path.size(), facts.function + ".ptx");
  auto refuse = [&](llvm::Twine what) {
    return llvm::createStringError("kernel '" + facts.function + "' on " +
                                   chip.name + ": " + what + "; ptxas " +
                                   ptxas.version + " said:\n" +
                                   StringRef(answer->text).trim());
  };
  if (answer->status != 0)
    return refuse("expected ptxas to succeed, found exit status " +
                  llvm::Twine(answer->status));
  Cubin cubin;
  llvm::Expected<PtxasReport> report = parsePtxasReport(answer->text);
  if (!report)
    return refuse(llvm::toString(report.takeError()));
  if (llvm::Error failure = checkPtxasReport(*report, facts, chip))
    return refuse(llvm::toString(std::move(failure)));
  auto buffer = llvm::MemoryBuffer::getFile(target.path, /*IsText=*/false,
                                            /*RequiresNullTerminator=*/false);
  if (!buffer)
    return refuse("expected a cubin, found " + buffer.getError().message());
  StringRef bytes = (*buffer)->getBuffer();
  llvm::Expected<uint64_t> instructions = countInstructions(bytes);
  if (!instructions)
    return refuse("expected a cubin that is an ELF file, found " +
                  llvm::Twine(bytes.size()) +
                  " bytes: " + llvm::toString(instructions.takeError()));
  cubin.code.assign(bytes.bytes_begin(), bytes.bytes_end());
  cubin.report = std::move(*report);
  cubin.instructions = *instructions;
  cubin.messages = std::move(answer->text);
  cubin.ptxasVersion = ptxas.version;
  return cubin;
}
