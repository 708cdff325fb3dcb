// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

// CHECK: @caches(!moa.cache<3x64xf32>, !moa.cache<1x80xf16>, !moa.cache<128x256xbf16>)
func.func private @caches(!moa.cache<3x64xf32>, !moa.cache<1x80xf16>, !moa.cache<128x256xbf16>)
