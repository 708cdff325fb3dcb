// RUN: moa-opt %s --split-input-file --verify-diagnostics

func.func @append_c1(%k: tensor<?x3x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{'moa.cache_append' op (C1) expected keys and values of 'tensor<?x2x64xf32>', got 'tensor<?x3x64xf32>'}}
  %r = moa.cache_append %k, %k, %c : tensor<?x3x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @append_c1_type(%k: tensor<?x2x64xf16>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C1) expected keys and values of 'tensor<?x2x64xf32>', got 'tensor<?x2x64xf16>'}}
  %r = moa.cache_append %k, %k, %c : tensor<?x2x64xf16>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c1(%q: tensor<?x8x64xf32>, %c: !moa.cache<3x64xf32>) {
  // expected-error @+1 {{'moa.attention' op (C1) expected query heads to be 1 to 16 times the cache's 3 heads, got queries of 'tensor<?x8x64xf32>'}}
  %o = moa.attention %q, %c : tensor<?x8x64xf32>, !moa.cache<3x64xf32>
  return
}

// -----

func.func @attention_c1_group(%q: tensor<?x17x64xf32>, %c: !moa.cache<1x64xf32>) {
  // expected-error @+1 {{(C1) expected query heads to be 1 to 16 times the cache's 1 heads, got queries of 'tensor<?x17x64xf32>'}}
  %o = moa.attention %q, %c : tensor<?x17x64xf32>, !moa.cache<1x64xf32>
  return
}

// -----

func.func @attention_c1_fewer(%q: tensor<?x0x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C1) expected query heads to be 1 to 16 times the cache's 2 heads, got queries of 'tensor<?x0x64xf32>'}}
  %o = moa.attention %q, %c : tensor<?x0x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c1_dynamic(%q: tensor<?x?x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C1) expected query heads to be 1 to 16 times the cache's 2 heads, got queries of 'tensor<?x?x64xf32>'}}
  %o = moa.attention %q, %c : tensor<?x?x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c2(%q: tensor<?x4x128xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected queries of 'tensor<?x4x64xf32>' for this cache, got 'tensor<?x4x128xf32>'}}
  %o = moa.attention %q, %c : tensor<?x4x128xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c2_type(%q: tensor<?x4x64xbf16>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected queries of 'tensor<?x4x64xf32>' for this cache, got 'tensor<?x4x64xbf16>'}}
  %o = moa.attention %q, %c : tensor<?x4x64xbf16>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c3(%q: tensor<?x32x128xf32>, %c: !moa.cache<8x128xf32>) {
  // expected-error @+1 {{'moa.attention' op (C3) expected one span per query head (32), got 31}}
  %o = moa.attention %q, %c window(<[31 x (256)], sink = 64, block = 64, min = 128, length = request>) : tensor<?x32x128xf32>, !moa.cache<8x128xf32>
  return
}

// -----

func.func @attention_c4_bytes(%q: tensor<?x4x64xf16>, %c: !moa.cache<2x64xf16>) {
  // expected-error @+1 {{(C4) expected page_bytes = 16384 for '!moa.cache<2x64xf16>', got 32768}}
  %o = moa.attention %q, %c layout(<page = 64, page_bytes = 32768, deciding = [[0], [2]]>) : tensor<?x4x64xf16>, !moa.cache<2x64xf16>
  return
}

// -----

func.func @attention_c4_heads(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C4) expected deciding query heads for 2 KV heads, got 1}}
  %o = moa.attention %q, %c layout(<page = 64, page_bytes = 32768, deciding = [[0]]>) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c4_group(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C4) expected the heads that decide KV head 1 to increase from 2 to at most 3, got array<i64: 1>}}
  %o = moa.attention %q, %c layout(<page = 64, page_bytes = 32768, deciding = [[0], [1]]>) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c4_order(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C4) expected the heads that decide KV head 0 to increase from 0 to at most 1, got array<i64: 1, 0>}}
  %o = moa.attention %q, %c layout(<page = 64, page_bytes = 32768, deciding = [[1, 0], [2]]>) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @attention_c5(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C5) expected a finite scale, got 0x7F800000 : f32}}
  %o = moa.attention %q, %c scale(0x7F800000) : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @decode_c3(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{'moa.decode' op (C3) expected one span per query head (4), got 2}}
  %o = moa.decode %q, %c window(<[2 x (256)], sink = 64, block = 64, min = 128, length = request>) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @decode_c6(%q: tensor<2x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C6) expected exactly one row, got 'tensor<2x4x64xf32>'}}
  %o = moa.decode %q, %c : tensor<2x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @decode_c6_dynamic(%q: tensor<?x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C6) expected exactly one row, got 'tensor<?x4x64xf32>'}}
  %o = moa.decode %q, %c : tensor<?x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @decode_c7(%q: tensor<1x4x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C7) expected a tile row for each of the 2 query heads of a group, got 4}}
  %o = moa.decode %q, %c tile(<lanes = dims, rows = 4, keys = 64>) : tensor<1x4x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @rope_c1(%q: tensor<?x4x64xf32>, %k: tensor<?x3x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{'moa.rope_append' op (C1) expected keys and values of 'tensor<?x2x64xf32>', got 'tensor<?x3x64xf32>'}}
  %r, %d = moa.rope_append %q, %k, %k, %c rope(<half, 64>) : tensor<?x4x64xf32>, tensor<?x3x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @rope_c2(%q: tensor<?x3x64xf32>, %k: tensor<?x2x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C2) expected queries beside keys of 'tensor<?x2x64xf32>', of 1 to 16 times the cache's 2 heads, got 'tensor<?x3x64xf32>'}}
  %r, %d = moa.rope_append %q, %k, %k, %c rope(<half, 64>) : tensor<?x3x64xf32>, tensor<?x2x64xf32>, !moa.cache<2x64xf32>
  return
}

// -----

func.func @rope_c3(%q: tensor<?x4x64xf32>, %k: tensor<?x2x64xf32>, %c: !moa.cache<2x64xf32>) {
  // expected-error @+1 {{(C3) expected to rotate at most the head size 64, got #moa.rope<half, 80>}}
  %r, %d = moa.rope_append %q, %k, %k, %c rope(<half, 80>) : tensor<?x4x64xf32>, tensor<?x2x64xf32>, !moa.cache<2x64xf32>
  return
}
