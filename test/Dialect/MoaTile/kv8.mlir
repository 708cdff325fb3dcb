// RUN: moa-opt %s | moa-opt | FileCheck %s
// RUN: moa-opt %s --mlir-print-op-generic | moa-opt | FileCheck %s

// CHECK-LABEL: func.func @loads
func.func @loads(%item: !moa_tile.item<decode>, %b: index) -> (!moa_tile.tile<64x80xf16>, !moa_tile.tile<64x80xf16>) {
  // CHECK: moa_tile.load_keys %{{.*}}[%{{.*}}] kv8 : <decode> -> <64x80xf16>
  %k = moa_tile.load_keys %item[%b] kv8 : !moa_tile.item<decode> -> !moa_tile.tile<64x80xf16>
  // CHECK: moa_tile.load_values %{{.*}}[%{{.*}}] kv8 : <decode> -> <64x80xf16>
  %v = moa_tile.load_values %item[%b] kv8 : !moa_tile.item<decode> -> !moa_tile.tile<64x80xf16>
  return %k, %v : !moa_tile.tile<64x80xf16>, !moa_tile.tile<64x80xf16>
}

// CHECK-LABEL: func.func @quantise
func.func @quantise(%item: !moa_tile.item<quantise>) {
  // CHECK: moa_tile.quantise_rows %{{.*}} dims 128 of bf16 : <quantise>
  moa_tile.quantise_rows %item dims 128 of bf16 : !moa_tile.item<quantise>
  return
}
