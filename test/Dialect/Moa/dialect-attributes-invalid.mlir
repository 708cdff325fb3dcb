// RUN: moa-opt %s --split-input-file --verify-diagnostics

// expected-error @+1 {{(C1) expected 'moa.model' to be a #moa.model on a module, got 3 : i64}}
module attributes {moa.model = 3} {}

// -----

// expected-error @+1 {{(C1) expected 'moa.model' to be a #moa.model on a module}}
func.func private @c1() attributes {moa.model = #moa.model<layers = 1, q_heads = 1, kv_heads = 1, head_dim = 64, dtype = f32, max_length = 8>}

// -----

// expected-error @+1 {{(C2) expected 'moa.plan_id' to be 64 lower-case hexadecimal digits on a module, got "00ff"}}
module attributes {moa.plan_id = "00ff"} {}

// -----

// expected-error @+1 {{(C2) expected 'moa.plan_id' to be 64 lower-case hexadecimal digits on a module}}
module attributes {moa.plan_id = "00112233445566778899AABBCCDDEEFF00112233445566778899AABBCCDDEEFF"} {}

// -----

// expected-error @+1 {{(C3) expected 'moa.layer' to be an i64 of at least 0 on a function, got 0 : i32}}
func.func private @c3_type() attributes {moa.layer = 0 : i32}

// -----

// expected-error @+1 {{(C3) expected 'moa.layer' to be an i64 of at least 0 on a function, got -1 : i64}}
func.func private @c3_negative() attributes {moa.layer = -1 : i64}

// -----

// expected-error @+1 {{(C3) expected 'moa.layer' to be an i64 of at least 0 on a function}}
module attributes {moa.layer = 0 : i64} {}

// -----

// expected-error @+1 {{(C4) expected 'moa.kernel' to be a #moa.kernel on a module, got "prefill"}}
module attributes {moa.kernel = "prefill"} {}
