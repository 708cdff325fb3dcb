#include "moa/runtime.h"
#include "moa/Plan/Plan.h"
