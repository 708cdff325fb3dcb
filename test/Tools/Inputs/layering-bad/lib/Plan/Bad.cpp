#include "llvm/Support/JSON.h"
#include "mlir/IR/Builders.h"
