#include "moa/runtime.h"
#include <vector>
#include "llvm/ADT/StringRef.h"
#include <nlohmann/json.hpp>
#include <Python.h>
