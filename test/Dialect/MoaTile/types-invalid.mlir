// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C1) expected positive tile sizes, got 0x64}}
func.func private @tile_c1(!moa_tile.tile<0x64xf32>)

// -----

// expected-error @+1 {{(C2) expected element type f32, f16 or bf16, got 'f64'}}
func.func private @tile_c2(!moa_tile.tile<64x64xf64>)

// -----

// expected-error @+1 {{expected a shape of 2 dimensions, got 3}}
func.func private @tile_rank(!moa_tile.tile<4x64x64xf32>)

// -----

// expected-error @+1 {{(C1) expected positive state sizes, got 64x0}}
func.func private @state_c1(!moa_tile.state<64x0>)

// -----

// expected-error @+1 {{expected a shape of 2 dimensions, got 1}}
func.func private @state_rank(!moa_tile.state<64>)

// -----

// expected-error @+1 {{(C1) expected rows between 1 and 256, got 257}}
func.func private @config_c1() attributes {a = #moa_tile.config<lanes = rows, rows = 257, keys = 64>}

// -----

// expected-error @+1 {{(C2) expected keys = 64 (one page) or 128, got 96}}
func.func private @config_c2() attributes {a = #moa_tile.config<lanes = rows, rows = 64, keys = 96>}

// -----

// expected-error @+1 {{(C1) expected positive tile sizes, got 64x0}}
func.func private @tile_c1_columns(!moa_tile.tile<64x0xf32>)

// -----

// expected-error @+1 {{expected static shape}}
func.func private @tile_dynamic(!moa_tile.tile<64x?xf32>)

// -----

// expected-error @+1 {{(C1) expected positive state sizes, got 0x64}}
func.func private @state_c1_rows(!moa_tile.state<0x64>)

// -----

// expected-error @+1 {{(C1) expected rows between 1 and 256, got 0}}
func.func private @config_c1_zero() attributes {a = #moa_tile.config<lanes = rows, rows = 0, keys = 64>}

// -----

// expected-error @+2 {{expected ::moa::tile::ItemKind to be one of: prefill, decode, append}}
// expected-error @+1 {{failed to parse MoaTile_ItemType parameter 'kind'}}
func.func private @item_kind(!moa_tile.item<verify>)

// -----

// expected-error @+2 {{expected ::moa::tile::Lanes to be one of: rows, dims}}
// expected-error @+1 {{failed to parse MoaTile_ConfigAttr parameter 'lanes'}}
func.func private @config_lanes() attributes {a = #moa_tile.config<lanes = keys, rows = 1, keys = 64>}
