// RUN: moa-opt %s --moa-select-tile-config | FileCheck %s --check-prefix=CPU
// RUN: moa-opt %s --moa-select-tile-config=chip=sm_90a | FileCheck %s --check-prefix=GPU
// RUN: moa-opt %s --moa-select-tile-config=chip=sm_80 | FileCheck %s --check-prefix=SM80
// RUN: not moa-opt %s --moa-select-tile-config=chip=sm_75 2>&1 | FileCheck %s --check-prefix=UNKNOWN

// On Hopper prefill takes 192 or 128 rows and two blocks of keys, while those fit its
// shared memory; on a CPU, and in decode, one block of 64.
// From sm_80 on it takes one block of keys, and 128 rows while they fit 99 KiB.
// UNKNOWN: unknown GPU 'sm_75', expected one of sm_90a, sm_80

#window = #moa.window<[4 x (N)], sink = 64, block = 64, min = 128, length = request>

// CPU: moa.attention {{.*}} tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x64xbf16>
// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 192, keys = 128>) : tensor<?x4x64xbf16>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x64xbf16>
func.func @d64(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xbf16>) -> tensor<?x4x64xbf16> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x64xbf16>, !moa.cache<2x64xbf16>
  return %o : tensor<?x4x64xbf16>
}

// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 128>) : tensor<?x4x80xbf16>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x80xbf16>
func.func @d80(%q: tensor<?x4x80xbf16>, %c: !moa.cache<2x80xbf16>) -> tensor<?x4x80xbf16> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x80xbf16>, !moa.cache<2x80xbf16>
  return %o : tensor<?x4x80xbf16>
}

// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 128>) : tensor<?x4x96xf16>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x96xf16>
func.func @d96(%q: tensor<?x4x96xf16>, %c: !moa.cache<2x96xf16>) -> tensor<?x4x96xf16> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x96xf16>, !moa.cache<2x96xf16>
  return %o : tensor<?x4x96xf16>
}

// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 128>) : tensor<?x4x128xbf16>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x128xbf16>
func.func @d128(%q: tensor<?x4x128xbf16>, %c: !moa.cache<2x128xbf16>) -> tensor<?x4x128xbf16> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x128xbf16>, !moa.cache<2x128xbf16>
  return %o : tensor<?x4x128xbf16>
}

// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x192xbf16>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x192xbf16>
func.func @d192(%q: tensor<?x4x192xbf16>, %c: !moa.cache<2x192xbf16>) -> tensor<?x4x192xbf16> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x192xbf16>, !moa.cache<2x192xbf16>
  return %o : tensor<?x4x192xbf16>
}

// CPU: moa.attention {{.*}} tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x256xbf16>
// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x256xbf16>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x256xbf16>
func.func @d256(%q: tensor<?x4x256xbf16>, %c: !moa.cache<2x256xbf16>) -> tensor<?x4x256xbf16> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x256xbf16>, !moa.cache<2x256xbf16>
  return %o : tensor<?x4x256xbf16>
}

// Rows of f32 are twice as long; 128 of them leave room for half a block.
// CPU: moa.attention {{.*}} tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x128xf32>
// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x128xf32>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x128xf32>
func.func @f32_d128(%q: tensor<?x4x128xf32>, %c: !moa.cache<2x128xf32>) -> tensor<?x4x128xf32> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x128xf32>, !moa.cache<2x128xf32>
  return %o : tensor<?x4x128xf32>
}

// CPU: moa.attention {{.*}} tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x192xf32>
// GPU: moa.attention {{.*}} tile(<lanes = rows, rows = 128, keys = 64>) : tensor<?x4x192xf32>
// SM80: moa.attention {{.*}} tile(<lanes = rows, rows = 64, keys = 64>) : tensor<?x4x192xf32>
func.func @f32_d192(%q: tensor<?x4x192xf32>, %c: !moa.cache<2x192xf32>) -> tensor<?x4x192xf32> {
  %o = moa.attention %q, %c window(#window) : tensor<?x4x192xf32>, !moa.cache<2x192xf32>
  return %o : tensor<?x4x192xf32>
}

// CPU: moa.decode {{.*}} tile(<lanes = dims, rows = 2, keys = 64>)
// GPU: moa.decode {{.*}} tile(<lanes = dims, rows = 2, keys = 64>)
// SM80: moa.decode {{.*}} tile(<lanes = dims, rows = 2, keys = 64>)
func.func @decode(%q: tensor<1x4x128xbf16>, %c: !moa.cache<2x128xbf16>) -> tensor<1x4x128xbf16> {
  %o = moa.decode %q, %c window(#window) : tensor<1x4x128xbf16>, !moa.cache<2x128xbf16>
  return %o : tensor<1x4x128xbf16>
}
