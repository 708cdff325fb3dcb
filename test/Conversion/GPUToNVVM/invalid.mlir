// RUN: moa-opt %s --convert-moa-gpu-to-nvvm --split-input-file --verify-diagnostics

llvm.func @first() attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 64, rows = 0, keys = 0>} {
  llvm.return
}
// expected-error @+1 {{expected one kernel in a module, got 2}}
llvm.func @second() attributes {moa_gpu.launch = #moa_gpu.launch<threads = 256, registers = 64, rows = 0, keys = 0>} {
  llvm.return
}

// -----

llvm.func @no_launch() {
  // expected-error @+1 {{expected in an llvm.func with 'moa_gpu.launch', which says how the kernel is launched}}
  %row = moa_gpu.lane_row
  llvm.return
}
