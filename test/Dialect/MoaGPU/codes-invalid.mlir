// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C2) expected element type f32, f16, bf16 or i8, got 'i16'}}
func.func private @shared_c2(!moa_gpu.shared<64x64xi16>)

// -----

// expected-error @+1 {{(C1) expected rows and columns that are positive multiples of 64 and 128, got 64x64}}
func.func private @shared_c1(!moa_gpu.shared<64x64xi8>)

// -----

!t = !moa_gpu.shared<64x192xf16>
func.func @as_codes_c1(%t: !t) {
  // expected-error @+1 {{(C1) expected the codes '!moa_gpu.shared<64x256xi8>' of its tile, got '!moa_gpu.shared<64x128xi8>'}}
  %c = moa_gpu.as_codes %t : !t -> !moa_gpu.shared<64x128xi8>
  return
}

// -----

func.func @copy_words_c1(%source: !llvm.ptr<1>, %full: !moa_gpu.barrier) {
  // expected-error @+1 {{(C1) expected directly in the body of a moa_gpu.put, at its barrier}}
  moa_gpu.copy_words %source, %full : !llvm.ptr<1>
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t, words = 8>
func.func @put_c3_words(%r: !r, %n: i32, %map: !llvm.ptr, %source: !llvm.ptr<1>) {
  // expected-error @+1 {{(C3) expected 8 words, as the ring has, or four fewer and at most one moa_gpu.copy_words, got 8 and 1}}
  moa_gpu.put %r[%n] words(%n, %n, %n, %n, %n, %n, %n, %n) : !r {
  ^bb0(%t: !t, %full: !moa_gpu.barrier):
    moa_gpu.copy_in %map[%n, %n, %n] to %t[0, 0], %full : !llvm.ptr, !t
    moa_gpu.copy_words %source, %full : !llvm.ptr<1>
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!r = !moa_gpu.ring<2 x !t>
func.func @put_c1_codes(%r: !r, %n: i32, %map: !llvm.ptr) {
  // expected-error @+1 {{(C1) expected body arguments ('!moa_gpu.shared<64x64xf16>', !moa_gpu.barrier), got}}
  moa_gpu.put %r[%n] : !r {
  ^bb0(%t: !moa_gpu.shared<64x256xi8>, %full: !moa_gpu.barrier):
  }
  return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
func.func @load_woven_c1_column(%t: !t, %n: i32) {
  // expected-error @+1 {{(C1) expected a tile of 16-bit elements and a column that is a multiple of 16 below its columns, got '!moa_gpu.shared<64x64xf16>' and 64}}
  %a = moa_gpu.load_woven %t[%n, 64] : !t
  return
}

// -----

!t = !moa_gpu.shared<64x128xi8>
func.func @load_woven_c1_type(%t: !t, %n: i32) {
  // expected-error @+1 {{(C1) expected a tile of 16-bit elements and a column}}
  %a = moa_gpu.load_woven %t[%n, 16] : !t
  return
}

// -----

!t = !moa_gpu.shared<64x128xi8>
func.func @load_matrix_c1(%t: !t, %n: i32) {
  // expected-error @+1 {{(C1) expected a column that is a multiple of 32 below 128, got 16}}
  %a = moa_gpu.load_matrix %t[%n, 16] : !t
  return
}

// -----

func.func @unpack_c1(%x: vector<4xi32>) {
  // expected-error @+1 {{(C1) expected type f16 or bf16, got 'f32'}}
  %p = moa_gpu.unpack %x e4m3 to f32 : vector<4xi32> -> vector<8xi32>
  return
}

// -----

func.func @unpack_c2(%x: vector<4xi32>) {
  // expected-error @+1 {{(C2) expected a result of 8 pairs, got 4}}
  %p = moa_gpu.unpack %x int8 to f16 : vector<4xi32> -> vector<4xi32>
  return
}

// -----

!t = !moa_gpu.shared<64x64xf32>
!b = !moa_gpu.buffers<2 x !t>
llvm.func @fetch_c2(%from: !llvm.ptr<1>, %stride: i64, %n: i32, %yes: i1) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 0, keys = 0>} {
  %places = moa_gpu.buffers : !b
  // expected-error @+1 {{(C2) expected a tile of 16-bit elements with codes, got '!moa_gpu.shared<64x64xf32>'}}
  moa_gpu.fetch %from stride %stride rows %n to %n columns 64 into %places[%n] if %yes codes if %yes : !b
  llvm.return
}

// -----

!t = !moa_gpu.shared<64x64xf16>
!b = !moa_gpu.buffers<2 x !t>
llvm.func @fetch_c1(%from: !llvm.ptr<1>, %stride: i64, %n: i32, %yes: i1) attributes {moa_gpu.launch = #moa_gpu.launch<threads = 128, registers = 128, rows = 0, keys = 0>} {
  %places = moa_gpu.buffers : !b
  // expected-error @+1 {{(C1) expected columns to be a multiple of 16 from 16 to 64, got 40}}
  moa_gpu.fetch %from stride %stride rows %n to %n columns 40 into %places[%n] if %yes codes if %yes : !b
  llvm.return
}
