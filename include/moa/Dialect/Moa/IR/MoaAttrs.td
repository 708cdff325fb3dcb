//===- MoaAttrs.td - Attributes ------------------------- -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_ATTRS_TD
#define MOA_ATTRS_TD

include "mlir/IR/AttrTypeBase.td"
include "moa/Dialect/Moa/IR/MoaEnums.td"

class Moa_Attr<string name, string attrMnemonic> : AttrDef<Moa_Dialect, name> {
  let mnemonic = attrMnemonic;
  let genVerifyDecl = 1;
}

def Moa_SpanAttr : Moa_Attr<"Span", "span"> {
  let summary = "the rule of one query head: span = alpha + beta * N";
  let description = [{
    `alpha` in tokens, `beta` without unit. A rule without `N` is constant.
    Example: `#moa.span<-512 + 0.75 * N>`, `#moa.span<512>`.

    - (C1) `beta` is a double between 0 and 1, and not the negative zero.
    - (C2) `alpha` is between -2^40 and 2^40.
  }];
  let parameters = (ins "int64_t":$alpha, APFloatParameter<"">:$betaValue);
  let builders = [
    AttrBuilder<(ins "int64_t":$alpha, "double":$beta), [{
      // The negative zero becomes the other one.
      return $_get($_ctxt, alpha, ::llvm::APFloat(beta + 0.0));
    }]>
  ];
  let hasCustomAssemblyFormat = 1;
  let extraClassDeclaration = [{
    double getBeta() const { return getBetaValue().convertToDouble(); }
  }];
}

def Moa_WindowAttr : Moa_Attr<"Window", "window"> {
  let summary = "which keys each query head of a layer sees";
  let description = [{
    One span rule per query head, in order; equal neighbours are written once
    with their count. Query row i of a head sees key j iff `j <= i` and
    (`j < sink` or `i - j < span(N) - sink`), where `span(N)` is the rule's
    value, at most N, at least `min`, rounded up to a multiple of `block`.
    All arithmetic is that of `moa/abi/span.h`.

    ```mlir
    #moa.window<[3 x (-512 + N), 6 x (-256 + 0.75 * N)],
                sink = 64, block = 64, min = 128, length = request,
                kv = [e4m3, model, int8]>
    ```

    `most` bounds every span of a layer whose model has a window of its own:
    `span(N)` is then at most that, rounded up or not, and there is no sink,
    as such a window hides the first tokens too:
    `#moa.window<[2 x (N)] most 512, sink = 0, ...>`.

    `kv` has the format of each KV head: `model` is the cache's element type,
    `e4m3` and `int8` keep pages in 8 bits, with a scale for the keys and one
    for the values of 64 tokens, but for the pages of the sink and the newest.
    Left out, all are `model`.

    - (C1) At least one span.
    - (C2) `sink` is not negative and below `min`, `min` at most 2^20.
    - (C3) `block` is between 1 and 2^20.
    - (C4) `kv` is left out or has a number of KV heads that divides the spans,
      not all of them `model`.
    - (C5) `most` is 0 (none) to 2^20, and stands beside `sink` = 0 alone.
  }];
  let parameters = (ins ArrayRefParameter<"SpanAttr">:$spans,
                        "int64_t":$sink, "int64_t":$block, "int64_t":$min,
                        EnumParameter<Moa_LengthRule>:$length,
                        OptionalArrayRefParameter<"KvFormat">:$kv,
                        DefaultValuedParameter<"int64_t", "0">:$most);
  let assemblyFormat = [{
    `<` custom<SpanRuns>($spans) (`most` $most^)? `,`
    struct($sink, $block, $min, $length)
    (`,` `kv` `=` custom<KvRuns>($kv)^)? `>`
  }];
  let extraClassDeclaration = [{
    /// The rule of one query head, as span.h takes it.
    ::moa_span_rule rule(int64_t head) const;
    /// Whether every head sees everything at every length.
    bool isDense() const;
    /// Whether some KV head keeps pages in 8 bits.
    bool hasKv8() const { return !getKv().empty(); }
    /// The format of one KV head.
    KvFormat kvFormat(int64_t kvHead) const {
      return hasKv8() ? getKv()[kvHead] : KvFormat::Model;
    }
    /// The window in which rules that mean the same at every length are written
    /// alike: dense ones as `N`, constant ones as the span they give.
    WindowAttr getCanonical() const;
  }];
}

def Moa_ModelAttr : Moa_Attr<"Model", "model"> {
  let summary = "geometry of a model's attention layers";
  let description = [{
    Stands on the module as `moa.model`. `max_length` is the longest sequence
    served, in tokens; `soft_cap` that of all scores, if they have one.

    - (C1) `layers`, `q_heads` and `kv_heads` are between 1 and 2^16,
      `max_length` between 1 and 2^30.
    - (C2) `kv_heads` divides `q_heads`, at most 16 query heads a KV head.
    - (C3) `head_dim` is one of 64, 80, 96, 128, 192, 256.
    - (C4) `dtype` is f32, f16 or bf16.
    - (C5) `soft_cap` is an f32 between 2^-20 and 2^20.
  }];
  let parameters = (ins "int64_t":$layers, "int64_t":$q_heads,
                        "int64_t":$kv_heads, "int64_t":$head_dim,
                        "::mlir::Type":$dtype, "int64_t":$max_length,
                        OptionalParameter<"::mlir::FloatAttr">:$soft_cap);
  let assemblyFormat = "`<` struct(params) `>`";
  let extraClassDeclaration = [{
    int64_t getGroup() const { return getQHeads() / getKvHeads(); }
  }];
}

def Moa_CacheLayoutAttr : Moa_Attr<"CacheLayout", "cache_layout"> {
  let summary = "how the pages of one layer are kept";
  let description = [{
    A KV head keeps the pages that the widest window of its group can still
    see; `deciding` lists, for each KV head, the query heads whose rules can be
    the widest at some length. `page` is in tokens, `page_bytes` counts keys
    and values of one page. `pages`, when the length is known, is the number of
    pages each KV head holds after that many tokens.

    - (C1) `page` is 64.
    - (C2) `page_bytes` is positive.
    - (C3) Every KV head has a deciding query head.
    - (C4) `pages` is empty or has one entry per KV head.
  }];
  let parameters = (ins "int64_t":$page, "int64_t":$page_bytes,
                        ArrayRefParameter<"::mlir::DenseI64ArrayAttr">:$deciding,
                        OptionalArrayRefParameter<"int64_t">:$pages);
  let assemblyFormat = [{
    `<` `page` `=` $page `,` `page_bytes` `=` $page_bytes `,` `deciding` `=`
    `[` $deciding `]` (`,` `pages` `=` `[` $pages^ `]`)? `>`
  }];
}

def Moa_TileConfigAttr : Moa_Attr<"TileConfig", "tile_config"> {
  let summary = "tile shape chosen for an operation";
  let description = [{
    `rows` query rows of one work item, `keys` keys of one block, `lanes` the
    dimension along vector lanes.

    - (C1) `rows` is between 1 and 256.
    - (C2) `keys` is 64 or 128.
  }];
  let parameters = (ins EnumParameter<Moa_Lanes>:$lanes, "int64_t":$rows,
                        "int64_t":$keys);
  let assemblyFormat = "`<` struct(params) `>`";
}

def Moa_RopeAttr : Moa_Attr<"Rope", "rope"> {
  let summary = "structure of a rotary embedding";
  let description = [{
    The first `rotary_dim` elements of a head are rotated in pairs, the rest
    passes through. A pair is (i, i + rotary_dim / 2) with layout `half`, and
    (2 i, 2 i + 1) with `interleaved`. Frequencies are no part of it: they
    belong to the cache. Example: `#moa.rope<half, 64>`.

    - (C1) `rotary_dim` is even and at least 2.
  }];
  let parameters = (ins EnumParameter<Moa_RopeLayout>:$layout,
                        "int64_t":$rotary_dim);
  let assemblyFormat = "`<` $layout `,` $rotary_dim `>`";
}

def Moa_KernelAttr : Moa_Attr<"Kernel", "kernel"> {
  let summary = "facts of one kernel, for the artifact";
  let description = [{
    Stands on a kernel's module as `moa.kernel`. `group` is the number of query
    heads in one work item (decode), else 1; `layers` are those that share it;
    `kv8` says that attention takes pages of 8 bits beside others, `soft_cap`
    what caps its scores.

    - (C1) `head_dim` and `group` are positive, `group` at most 16.
    - (C2) `dtype` is f32, f16 or bf16.
    - (C3) `layers` is not empty and increases.
    - (C4) A rope kernel has a `rope` that fits `head_dim`, others have none.
    - (C5) `kv8` stands on prefill and decode kernels alone. With it, and on a
      quantise kernel, `dtype` is f16 or bf16.
    - (C6) `soft_cap` stands on prefill and decode kernels alone, an f32 between
      2^-20 and 2^20.
  }];
  let parameters = (ins EnumParameter<Moa_KernelKind>:$kind,
                        "int64_t":$head_dim, "int64_t":$group,
                        "::mlir::Type":$dtype,
                        "::mlir::DenseI64ArrayAttr":$layers,
                        OptionalParameter<"::moa::RopeAttr">:$rope,
                        DefaultValuedParameter<"bool", "false">:$kv8,
                        OptionalParameter<"::mlir::FloatAttr">:$soft_cap);
  let assemblyFormat = "`<` struct(params) `>`";
}

#endif // MOA_ATTRS_TD
