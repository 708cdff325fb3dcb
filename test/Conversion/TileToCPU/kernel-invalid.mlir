// RUN: moa-opt %s --convert-moa-tile-to-cpu --split-input-file --verify-diagnostics

// Signatures, append kernels, and attention kernels that lack a part.

// expected-error @+2 {{expected a kernel with a body, got a declaration}}
// expected-note @+1 {{make kernels of the form}}
func.func private @declaration(!moa_tile.item<append>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>}

// -----

// expected-error @+2 {{expected 'moa_tile.config' to be a #moa_tile.config, got 64 : i64}}
// expected-note @+1 {{make kernels of the form}}
func.func @config(%item: !moa_tile.item<append>) attributes {moa_tile.config = 64} {
  return
}

// -----

// expected-error @+2 {{expected one argument of type !moa_tile.item and no result, got '(!moa_tile.item<append>, index) -> ()'}}
// expected-note @+1 {{make kernels of the form}}
func.func @two_arguments(%item: !moa_tile.item<append>, %n: index) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  return
}

// -----

// expected-error @+2 {{expected one argument of type !moa_tile.item and no result, got '(index) -> ()'}}
// expected-note @+1 {{make kernels of the form}}
func.func @no_item(%n: index) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  return
}

// -----

// expected-error @+2 {{expected one argument of type !moa_tile.item and no result, got '(!moa_tile.item<append>) -> !moa_tile.item<append>'}}
// expected-note @+1 {{make kernels of the form}}
func.func @result(%item: !moa_tile.item<append>) -> !moa_tile.item<append> attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  return %item : !moa_tile.item<append>
}

// -----

// expected-error @+2 {{expected one block, got 2}}
// expected-note @+1 {{make kernels of the form}}
func.func @blocks(%item: !moa_tile.item<append>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  return
^bb1:
  return
}

// -----

func.func @foreign(%item: !moa_tile.item<append>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{'arith.constant' op has no place in an append kernel}}
  // expected-note @+1 {{make kernels of the form}}
  %c = arith.constant 0 : index
  moa_tile.copy_rows %item dims 64 of f32 : !moa_tile.item<append>
  return
}

// -----

func.func @attention_in_append(%item: !moa_tile.item<append>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{'moa_tile.init' op has no place in an append kernel}}
  // expected-note @+1 {{make kernels of the form}}
  %s = moa_tile.init : !moa_tile.state<3x64>
  return
}

// -----

func.func @copy_rows_words(%item: !moa_tile.item<append>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{expected rows of a multiple of 4 bytes, got 33 of 'bf16', 66 bytes}}
  // expected-note @+1 {{make kernels of the form}}
  moa_tile.copy_rows %item dims 33 of bf16 : !moa_tile.item<append>
  return
}

// -----

func.func @copy_rows_size(%item: !moa_tile.item<append>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{expected a head size of at most 256, got 260}}
  // expected-note @+1 {{make kernels of the form}}
  moa_tile.copy_rows %item dims 260 of f32 : !moa_tile.item<append>
  return
}

// -----

func.func @foreign_in_attention(%item: !moa_tile.item<decode>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{'arith.constant' op has no place in an attention kernel}}
  // expected-note @+1 {{make kernels of the form}}
  %c = arith.constant 0 : index
  return
}

// -----

func.func @scores_outside(%item: !moa_tile.item<prefill>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !moa_tile.item<prefill> -> !moa_tile.tile<3x64xf32>
  // expected-error @+2 {{'moa_tile.scores' op has no place in an attention kernel}}
  // expected-note @+1 {{make kernels of the form}}
  %x = moa_tile.scores %q, %q : !moa_tile.tile<3x64xf32>, !moa_tile.tile<3x64xf32> -> !moa_tile.tile<3x3xf32>
  return
}

// -----

// expected-error @+2 {{expected one moa_tile.load_queries, got 0}}
// expected-note @+1 {{make kernels of the form}}
func.func @no_queries(%item: !moa_tile.item<decode>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %s = moa_tile.init : !moa_tile.state<3x64>
  moa_tile.store_partial %s, %item : !moa_tile.state<3x64>, !moa_tile.item<decode>
  return
}

// -----

// expected-error @+2 {{expected at least one moa_tile.for_blocks, got none}}
// expected-note @+1 {{make kernels of the form}}
func.func @no_loop(%item: !moa_tile.item<decode>) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  %q = moa_tile.load_queries %item : !moa_tile.item<decode> -> !moa_tile.tile<3x64xf32>
  %s = moa_tile.init : !moa_tile.state<3x64>
  moa_tile.store_partial %s, %item : !moa_tile.state<3x64>, !moa_tile.item<decode>
  return
}

// -----

!item = !moa_tile.item<decode>
func.func @head_size(%item: !item) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{expected a head size that is a multiple of 16, at most 256, got 72}}
  // expected-note @+1 {{make kernels of the form}}
  %q = moa_tile.load_queries %item : !item -> !moa_tile.tile<3x72xf32>
  return
}

// -----

!item = !moa_tile.item<decode>
func.func @head_size_large(%item: !item) attributes {moa_tile.config = #moa_tile.config<lanes = dims, rows = 3, keys = 64>} {
  // expected-error @+2 {{expected a head size that is a multiple of 16, at most 256, got 272}}
  // expected-note @+1 {{make kernels of the form}}
  %q = moa_tile.load_queries %item : !item -> !moa_tile.tile<3x272xf32>
  return
}
