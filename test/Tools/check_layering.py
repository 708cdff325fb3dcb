"""Checks that sources include only what their layer may.

Usage: check_layering.py ROOT. Each C, C++ and TableGen file below lib, include,
runtime, tools and python belongs to the first layer of LAYERS whose folder holds
it; an include that the layer does not list is a fault, and so is a file of no
layer. Exit code 0 without faults, 1 with, 2 where nothing was there to check.
"""

import re
import sys
from pathlib import Path

# Headers of the C standard library; C++ and POSIX ones carry no folder either.
C_HEADERS = {
    "assert.h", "ctype.h", "errno.h", "float.h", "inttypes.h", "limits.h", "math.h",
    "stdalign.h", "stdbool.h", "stddef.h", "stdint.h", "stdio.h", "stdlib.h",
    "string.h", "time.h",
}  # fmt: skip
# Of any other library, though without a folder.
FOREIGN = re.compile(r"^(Python|cuda|cuda_\w+|nccl)\.h$")

UPSTREAM = [r"mlir/", r"llvm/"]
CHIP = [r"moa/Target/Chip\.h$"]
ABI = [r"moa/abi/"]
CONVERSION = UPSTREAM + CHIP + ABI + [r"moa/Conversion/"]
MOA = [r"moa/Dialect/Moa/"]
TILE = [r"moa/Dialect/MoaTile/"]
GPU = [r"moa/Dialect/MoaGPU/"]
PARTS = r"moa/(Plan|Dialect|Conversion|Target|Pipelines)/"
ABOVE_RUNTIME = [*UPSTREAM, *ABI, PARTS, r"moa/InitAll\.h$", r"moa-c/"]
RUNTIME_API = [r"moa/(runtime\.hp?p?|(observe|prefix|scheduler)\.h)$"]

# Folder (a regular expression on the path), what it may include besides the
# standard library and files beside it, or generated from a .td beside it. The
# first match counts.
LAYERS = [
    (r"runtime/include/moa/abi/", ABI),
    (r"runtime/include/", ABI + RUNTIME_API),
    (r"runtime/src/", ABI + RUNTIME_API + [r"cuda\.h$"]),
    (r"(lib|include/moa)/Plan/",
     ABI + [r"moa/Plan/", r"nlohmann/", r"llvm/(Support|ADT)/"]),
    (r"(lib|include/moa)/Dialect/Moa/",
     MOA + UPSTREAM + CHIP + [r"moa/Plan/", r"moa/abi/(span|kernel_args)\.h$"]),
    (r"(lib|include/moa)/Dialect/MoaTile/", TILE + UPSTREAM + CHIP),
    (r"(lib|include/moa)/Dialect/MoaGPU/", GPU + UPSTREAM),
    (r"lib/Conversion/MoaToTile/|include/moa/Conversion/MoaToTile",
     CONVERSION + MOA + TILE),
    (r"lib/Conversion/TileToGPU/", CONVERSION + TILE + GPU),
    (r"lib/Conversion/TileTo\w+/|include/moa/Conversion/TileTo", CONVERSION + TILE),
    (r"lib/Conversion/GPUToNVVM/", UPSTREAM + [r"moa/Conversion/"] + GPU),
    (r"(lib|include/moa)/Conversion/", CONVERSION + MOA + TILE + GPU),
    (r"lib/Target/Artifact|include/moa/Target/Artifact",
     UPSTREAM + ABI + MOA + [r"moa/Target/", r"moa/Plan/"]),
    (r"lib/Target/NVPTX/Device/", ABI),
    (r"(lib|include/moa)/Target/", UPSTREAM + ABI + [r"moa/Target/"]),
    (r"(lib|include/moa)/Pipelines/|(lib|include/moa)/InitAll\.|lib/CAPI/",
     ABOVE_RUNTIME),
    (r"include/moa-c/", [r"moa-c/", r"mlir-c/"]),
    (r"tools/moa-(opt|compile|lsp-server)/", ABOVE_RUNTIME),
    (r"tools/moa-run/", ABI + RUNTIME_API),
    (r"python/src/.*Compiler", ABOVE_RUNTIME + [r"nanobind/", r"moa-c/"]),
    (r"python/src/", ABI + RUNTIME_API + [r"nanobind/", r"Python\.h$"]),
]  # fmt: skip
# Python: the planner stands alone, but for the span arithmetic.
PLANNER = re.compile(r"^python/moa/plan/")
# But for span arithmetic, and the plan as users run it.
PLANNER_MAY = {
    "python/moa/plan/span.py": {"runtime"},
    "python/moa/plan/kernels.py": {"compiler", "hf"},
}
PLANNER_MUST_NOT = re.compile(
    r"^\s*(?:from|import)\s+(?:moa\.|\.+|(?:moa|\.+)\s+import\s+)(compiler|runtime|hf|_(?!_)\w+)\b",
    re.MULTILINE,
)

INCLUDE = re.compile(r'^[ \t]*#?[ \t]*include[ \t]+([<"])([^">]+)[">]', re.MULTILINE)
SUFFIXES = {".h", ".hpp", ".c", ".cpp", ".td"}
FOLDERS = ("lib", "include", "runtime", "tools", "python")


def is_standard(name: str) -> bool:
    """Whether `name` is spelled like a header of C, C++ or POSIX."""
    if name.startswith("sys/"):
        return True
    return "/" not in name and not FOREIGN.match(name)


def check_file(root: Path, path: Path) -> tuple[str, int, list[str]]:
    """Returns the layer of a file, its number of includes, and its faults."""
    relative = path.relative_to(root).as_posix()
    text = path.read_text(encoding="utf-8")
    layer = next(((p, a) for p, a in LAYERS if re.match(p, relative)), None)
    if layer is None:
        return "", 0, [f"{relative}:1: belongs to no layer; add its folder to LAYERS"]
    pattern, allowed = layer
    is_abi = relative.startswith("runtime/include/moa/abi/")
    faults, count = [], 0
    for match in INCLUDE.finditer(text):
        count += 1
        bracket, name = match.groups()
        if bracket == "<" and (name in C_HEADERS if is_abi else is_standard(name)):
            continue
        beside = path.parent / name
        in_runtime = root / "runtime" / "src" / name
        if bracket == '"' and (
            beside.exists()
            or (name.endswith(".inc") and beside.with_suffix(".td").exists())
            or (relative.startswith("runtime/src/") and in_runtime.exists())
        ):
            continue
        if any(re.match(option, name) for option in allowed):
            continue
        line = text.count("\n", 0, match.start()) + 1
        faults.append(
            f"{relative}:{line}: must not include '{name}'; "
            f"this layer may include: {', '.join(allowed)}"
        )
    return pattern, count, faults


def main() -> int:
    root = Path(sys.argv[1]).resolve()
    faults, counts = [], dict.fromkeys((pattern for pattern, _ in LAYERS), 0)
    files = 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file():
                layer, count, found = check_file(root, path)
                files += 1
                faults += found
                if layer:
                    counts[layer] += count
            elif path.suffix == ".py":
                relative = path.relative_to(root).as_posix()
                if PLANNER.match(relative):
                    allowed = PLANNER_MAY.get(relative, set())
                    for match in PLANNER_MUST_NOT.finditer(path.read_text(encoding="utf-8")):
                        if match[1] not in allowed:
                            faults.append(
                                f"{relative}: must not import '{match[1]}': the planner "
                                "uses neither compiler nor runtime"
                            )
    for fault in faults:
        print(fault)
    for pattern, count in counts.items():
        print(f"layer {pattern}: {count} includes")
    print(f"{files} files, {sum(counts.values())} includes, {len(faults)} faults")
    if not files or not sum(counts.values()):
        print(f"error: expected sources below {root}, found none")
        return 2
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
