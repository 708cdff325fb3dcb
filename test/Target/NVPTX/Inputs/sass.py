"""Count the machine instructions of a cubin, and what overlaps asynchronous products.

`sass.py NVDISASM CUBIN` prints, one fact a line:
    count CLASS N               instructions by class: HGMMA, MUFU, WARPGROUP.DEPBAR, ..
    total N                     all of them
    wait PENDING CLASS:N ..     each WARPGROUP.DEPBAR in order: groups that may still be
                                in flight, and the arithmetic since the last product or wait
    overlap MUFU N              between a wait that leaves groups in flight and the next
                                wait for all: exponentials that run beside the product
    largest overlap MUFU N      the largest of them; absent without such a pair
"""

import collections
import re
import subprocess
import sys

INSTRUCTION = re.compile(
    r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)([^;]*);"
)
# Classes whose second part says what they do.
DETAILED = {"WARPGROUP", "BAR", "SYNCS"}
ARITHMETIC = ("BAR", "F2FP", "FADD", "FFMA", "FMNMX", "FMUL", "MUFU", "SYNCS")


def instructions(nvdisasm, cubin):
    """Yield (opcode, operands) of all code in the file."""
    command = [nvdisasm, "--print-code", cubin]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in text.splitlines():
        match = INSTRUCTION.match(line)
        if match:
            yield match[1], match[2]


def class_of(opcode):
    parts = opcode.split(".")
    return ".".join(parts[:2]) if parts[0] in DETAILED else parts[0]


def main(nvdisasm, cubin):
    counts = collections.Counter()
    since = collections.Counter()
    pending, overlaps = 0, []
    for opcode, operands in instructions(nvdisasm, cubin):
        counts[class_of(opcode)] += 1
        base = opcode.split(".")[0]
        if base == "HGMMA":
            since.clear()
            pending = 0
        elif opcode.startswith("WARPGROUP.DEPBAR"):
            left = int(operands.rsplit(",", 1)[1], 16)
            work = " ".join(f"{name}:{since[name]}" for name in ARITHMETIC if since[name])
            print(f"wait {left} {work}".rstrip())
            if pending and left == 0:
                overlaps.append(since["MUFU"])
                print(f"overlap MUFU {since['MUFU']}")
            pending = left
            since.clear()
        else:
            since[base] += 1
    if overlaps:
        print(f"largest overlap MUFU {max(overlaps)}")
    for name, number in sorted(counts.items()):
        print(f"count {name} {number}")
    print(f"total {sum(counts.values())}")
    return 0 if counts else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
