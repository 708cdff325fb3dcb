include "mlir/IR/OpBase.td"
include "moa/Dialect/Moa/IR/Moa.td"
