//===- MoaOps.td - Operations ------------------------- -*- tablegen -*-===//
//
// Part of the MoA project, under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOA_OPS_TD
#define MOA_OPS_TD

include "mlir/IR/BuiltinAttributes.td"
include "mlir/IR/SymbolInterfaces.td"
include "mlir/Interfaces/SideEffectInterfaces.td"
include "moa/Dialect/Moa/IR/MoaAttrs.td"
include "moa/Dialect/Moa/IR/MoaInterfaces.td"
include "moa/Dialect/Moa/IR/MoaTypes.td"

class Moa_Op<string mnemonic, list<Trait> traits = []>
    : Op<Moa_Dialect, mnemonic, traits>;

/// [tokens][heads][head size].
def Moa_Rows : 3DTensorOf<[F32, F16, BF16]>;

def Moa_CacheAppendOp : Moa_Op<"cache_append", [
    Pure, AllTypesMatch<["keys", "values"]>,
    AllTypesMatch<["cache", "result"]>
  ]> {
  let summary = "append keys and values of new tokens to a layer's cache";
  let description = [{
    Keys are rotated already, with absolute positions. The result is the cache
    after the append.

    - (C1) Keys and values have one type: [tokens][KV heads][head size] of the
      cache.

    ```mlir
    %c = moa.cache_append %k, %v, %cache
      : tensor<?x3x64xf32>, !moa.cache<3x64xf32>
    ```
  }];
  let arguments = (ins Moa_Rows:$keys, Moa_Rows:$values, Moa_CacheType:$cache);
  let results = (outs Moa_CacheType:$result);
  let assemblyFormat = [{
    $keys `,` $values `,` $cache attr-dict `:` type($keys) `,`
    qualified(type($cache))
  }];
  let hasFolder = 1;
  let hasVerifier = 1;
}

def Moa_RopeAppendOp : Moa_Op<"rope_append", [
    Pure, AllTypesMatch<["queries", "rotated"]>,
    AllTypesMatch<["keys", "values"]>, AllTypesMatch<["cache", "result"]>
  ]> {
  let summary = "rotate queries and keys of new tokens, and append";
  let description = [{
    As `moa.cache_append`, of keys that are not rotated yet. Queries and keys
    are rotated by the positions of their tokens in the cache, with the
    frequencies that the cache has for this layer. The results are the rotated
    queries, and the cache after the append.

    - (C1) Keys and values have one type: [tokens][KV heads][head size] of the
      cache.
    - (C2) Queries are as many tokens of the cache's head size and element
      type, of a multiple of its heads, at most 16 times.
    - (C3) `rope` rotates at most the head size.

    ```mlir
    %r, %c = moa.rope_append %q, %k, %v, %cache rope(<half, 64>)
      : tensor<?x9x64xf32>, tensor<?x3x64xf32>, !moa.cache<3x64xf32>
    ```
  }];
  let arguments = (ins Moa_Rows:$queries, Moa_Rows:$keys, Moa_Rows:$values,
                       Moa_CacheType:$cache, Moa_RopeAttr:$rope);
  let results = (outs Moa_Rows:$rotated, Moa_CacheType:$result);
  let assemblyFormat = [{
    $queries `,` $keys `,` $values `,` $cache `rope` `(` $rope `)` attr-dict
    `:` type($queries) `,` type($keys) `,` qualified(type($cache))
  }];
  let hasVerifier = 1;
}

class Moa_AttendOp<string mnemonic, list<Trait> traits = []>
    : Moa_Op<mnemonic, !listconcat([
        Pure, AllTypesMatch<["queries", "result"]>,
        DeclareOpInterfaceMethods<Moa_WindowedOpInterface, ["getKernelKind"]>
      ], traits)> {
  let arguments = (ins Moa_Rows:$queries, Moa_CacheType:$cache,
                       OptionalAttr<Moa_WindowAttr>:$window,
                       OptionalAttr<Moa_CacheLayoutAttr>:$layout,
                       OptionalAttr<Moa_TileConfigAttr>:$tile_config,
                       OptionalAttr<F32Attr>:$scale,
                       OptionalAttr<F32Attr>:$soft_cap);
  let results = (outs Moa_Rows:$result);
  let assemblyFormat = [{
    $queries `,` $cache (`window` `(` $window^ `)`)? (`scale` `(` $scale^ `)`)?
    (`soft_cap` `(` $soft_cap^ `)`)? (`layout` `(` $layout^ `)`)?
    (`tile` `(` $tile_config^ `)`)? attr-dict `:` type($queries) `,`
    qualified(type($cache))
  }];
  let hasFolder = 1;
  let hasVerifier = 1;
}

def Moa_AttentionOp : Moa_AttendOp<"attention"> {
  let summary = "attention of the newest tokens over a layer's cache";
  let description = [{
    The queries are those of the last tokens in the cache: a whole prompt, or a
    chunk of one. Without a window every head is dense. Without a scale it is
    1 / sqrt(head size). With a soft cap c, a score s that has been scaled is
    c * tanh(s / c).

    - (C1) Query heads are a multiple of the cache's heads, at most 16 times.
    - (C2) Head size and element type are the cache's.
    - (C3) One span per query head and, where the window has formats, one per
      KV head; pages of 8 bits stand beside f16 or bf16.
    - (C4) The layout has the page size of this cache and, for each KV head,
      deciding query heads of its own group in increasing order.
    - (C5) The scale is finite, the soft cap between 2^-20 and 2^20.

    ```mlir
    %o = moa.attention %q, %c window(#window)
      : tensor<?x9x64xf32>, !moa.cache<3x64xf32>
    ```
  }];
}

def Moa_DecodeOp : Moa_AttendOp<"decode"> {
  let summary = "attention of one new token over a layer's cache";
  let description = [{
    As `moa.attention`, for the last token alone.

    - (C1) to (C5) as `moa.attention`.
    - (C6) Exactly one row.
    - (C7) A tile has one row for each query head of a group.
  }];
}

def Moa_LaunchOp : Moa_Op<"launch", [
    DeclareOpInterfaceMethods<SymbolUserOpInterface>
  ]> {
  let summary = "run a compiled kernel over the work of a call";
  let description = [{
    Stands where an operation stood that has become a kernel, with its operands
    and results. The runtime derives the work from windows and lengths; the
    attributes are what it needs for that.

    - (C1) `kernel` names a module with a `moa.kernel` attribute.
    - (C2) Operands and results are those of the operation that the kernel
      stands for, with its head size, element type and group: for append keys,
      values and cache to cache, for rope queries, keys, values and cache to
      rows like the queries and cache, else queries and cache to rows like the
      queries.
    - (C3) A window stands on attention alone, with one span per query head.
    - (C4) In a function with `moa.layer`, the kernel's `layers` name it.

    ```mlir
    %o = moa.launch @prefill_d64_f32(%q, %c) {window = #window}
      : (tensor<?x9x64xf32>, !moa.cache<3x64xf32>) -> tensor<?x9x64xf32>
    ```
  }];
  let arguments = (ins FlatSymbolRefAttr:$kernel, Variadic<AnyType>:$inputs,
                       OptionalAttr<Moa_WindowAttr>:$window,
                       OptionalAttr<Moa_CacheLayoutAttr>:$layout,
                       OptionalAttr<F32Attr>:$scale);
  let results = (outs Variadic<AnyType>:$outputs);
  let assemblyFormat = [{
    $kernel `(` $inputs `)` attr-dict `:` functional-type($inputs, $outputs)
  }];
}

#endif // MOA_OPS_TD
