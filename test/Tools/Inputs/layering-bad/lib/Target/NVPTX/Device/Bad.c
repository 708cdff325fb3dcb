#include "moa/Target/NVPTX.h"
