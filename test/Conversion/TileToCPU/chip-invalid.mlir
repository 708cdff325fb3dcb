// RUN: moa-opt %s --convert-moa-tile-to-cpu=chip=x86-64-v5 --verify-diagnostics

// An unknown chip is refused before any kernel is looked at.
// expected-error @+1 {{unknown CPU variant 'x86-64-v5'; expected one of: x86-64-v4-bf16 x86-64-v4 x86-64-v3}}
module {
  func.func @append(%item: !moa_tile.item<append>) attributes {
      moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
    moa_tile.copy_rows %item dims 64 of f32 : !moa_tile.item<append>
    return
  }
}
