#include "moa/Dialect/MoaTile/IR/MoaTile.h"
