func.func @layer_0_prefill(%q: tensor<?xHEADSx64xTYPE>, %cache: !moa.cache<KVx64xTYPE>) -> tensor<?xHEADSx64xTYPE> attributes {moa.layer = 0 : i64} {
  %o = moa.attention %q, %cache : tensor<?xHEADSx64xTYPE>, !moa.cache<KVx64xTYPE>
  return %o : tensor<?xHEADSx64xTYPE>
}
