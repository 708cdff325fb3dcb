#include "moa/Dialect/MoaGPU/IR/MoaGPU.h"
