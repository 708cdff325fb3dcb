//===- PTXToCubin.cpp - Finding and running ptxas -------------------------===//
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

#include "llvm/ADT/ScopeExit.h"
#include "llvm/Object/ELF.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/Process.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/Regex.h"

using namespace moa;
using llvm::StringRef;

/// Seconds that one run may take: a kernel takes about one.
static constexpr unsigned kTimeLimit = 300;

namespace {

/// A temporary file that is gone at the end of the scope.
struct TemporaryFile {
  explicit TemporaryFile(StringRef suffix) {
    error = llvm::sys::fs::createTemporaryFile("moa", suffix, path);
    if (!error)
      remover.setFile(path, /*deleteIt=*/true);
  }
  llvm::SmallString<128> path;
  std::error_code error;

private:
  llvm::FileRemover remover;
};

/// What a program answered.
struct Answer {
  int status = 0;   ///< As ExecuteAndWait returns it.
  std::string text; ///< Standard output and error, as they came.
};

} // namespace

/// Runs a program and waits for it. Fails when it cannot be started.
static llvm::Expected<Answer> execute(StringRef program,
                                      llvm::ArrayRef<StringRef> arguments) {
  TemporaryFile log("log");
  if (log.error)
    return llvm::createStringError("cannot create a temporary file: " +
                                   log.error.message());
  llvm::SmallVector<StringRef> argv{program};
  argv.append(arguments.begin(), arguments.end());
  StringRef path = log.path;
  std::optional<StringRef> redirects[] = {StringRef(""), path, path};
  std::string message;
  bool failed = false;
  Answer answer;
  answer.status = llvm::sys::ExecuteAndWait(
      program, argv, /*Env=*/std::nullopt, redirects, kTimeLimit,
      /*MemoryLimit=*/0, &message, &failed);
  if (failed || answer.status < 0)
    return llvm::createStringError("cannot run '" + program + "': " + message);
  if (auto buffer = llvm::MemoryBuffer::getFile(path))
    answer.text = (*buffer)->getBuffer().str();
  return answer;
}

/// The first program named ptxas in PATH, $CUDA_HOME and the usual folder.
static std::string searchPtxas() {
  if (auto found = llvm::sys::findProgramByName("ptxas"))
    return *found;
  llvm::SmallVector<std::string, 2> folders;
  if (auto home = llvm::sys::Process::GetEnv("CUDA_HOME"))
    folders.push_back(*home + "/bin");
  folders.push_back("/usr/local/cuda/bin");
  for (const std::string &folder : folders)
    if (auto found = llvm::sys::findProgramByName("ptxas", {StringRef(folder)}))
      return *found;
  return "";
}

llvm::Expected<Ptxas> moa::findPtxas(StringRef path) {
  Ptxas ptxas;
  ptxas.path = path.empty() ? searchPtxas() : path.str();
  if (ptxas.path.empty())
    return llvm::createStringError(
        "expected ptxas in PATH, in $CUDA_HOME/bin or in /usr/local/cuda/bin, "
        "found none");
  if (!llvm::sys::fs::can_execute(ptxas.path))
    return llvm::createStringError("expected a program that can be run at '" +
                                   ptxas.path + "', found none");
  llvm::Expected<Answer> answer = execute(ptxas.path, {"--version"});
  if (!answer)
    return answer.takeError();
  llvm::SmallVector<StringRef, 2> match;
  if (answer->status != 0 ||
      !llvm::Regex("V([0-9]+\\.[0-9]+\\.[0-9]+)").match(answer->text, &match))
    return llvm::createStringError(
        "expected '" + ptxas.path +
        " --version' to state a version such as V13.0.88, found exit status " +
        llvm::Twine(answer->status) +
        " and: " + StringRef(answer->text).trim().take_front(200));
  ptxas.version = match[1].str();
  return ptxas;
}

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
      execute(ptxas.path, {arch, "-O3", "-v", "--warn-on-spills", source.path,
                           "-o", target.path});
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
  return cubin;
}
