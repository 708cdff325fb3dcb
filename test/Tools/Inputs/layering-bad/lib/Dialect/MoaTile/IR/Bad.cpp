#include "moa/Dialect/MoaTile/IR/MoaTile.h"
#include "moa/Plan/Plan.h"
