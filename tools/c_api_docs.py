"""Writes the reference of C headers as Markdown.

Usage: c_api_docs.py OUTPUT.md HEADER... Takes the text at the head of each
header, its section titles, each struct and enum, and each declaration that has
/// text above it.
Fails on a header where it finds no declaration.
"""

import re
import sys
from pathlib import Path

# Declared with or without text above: its members carry the text.
BARE = re.compile(r"^(typedef )?(struct|enum)\b.*\{$")
RULE = re.compile(r"^//===-+===//$")


def head_text(lines: list[str]) -> list[str]:
    """The description between the licence and the first code of a header."""
    rules = [i for i, line in enumerate(lines) if RULE.match(line)]
    return [line[2:].strip() for line in lines[rules[0] + 1 : rules[1]]]


def declaration(lines: list[str], start: int) -> list[str]:
    """Lines from `start` to the end of one declaration or macro."""
    depth = 0
    for end in range(start, len(lines)):
        line = lines[end]
        if lines[start].startswith("#define"):
            if not line.endswith("\\"):
                return lines[start : end + 1]
            continue
        depth += line.count("{") - line.count("}")
        if depth == 0 and line.rstrip().endswith((";", "}")):
            return lines[start : end + 1]
    return lines[start:]


def render(path: Path) -> str:
    """Markdown of one header."""
    lines = path.read_text(encoding="utf-8").splitlines()
    out = [f"# `{'/'.join(path.parts[path.parts.index('moa') :])}`", ""]
    out += [*head_text(lines), ""]
    count, i, text = 0, 0, []
    while i < len(lines):
        line = lines[i]
        if RULE.match(line) and i + 2 < len(lines) and RULE.match(lines[i + 2]):
            out += [f"## {lines[i + 1][2:].strip()}", ""]
            i += 3
        elif line.startswith("///"):
            text.append(line[3:].strip())
            i += 1
        elif line.strip() and (text or BARE.match(line)):
            code = declaration(lines, i)
            count += 1
            out += [*text, "```c", *body(code), "```", ""]
            text = []
            i += len(code)
        else:
            i += 1
    if not count:
        sys.exit(f"error: expected documented declarations in {path}, found none")
    return "\n".join(out)


def body(code: list[str]) -> list[str]:
    """A declaration as users read it: inline functions without their body."""
    if code[0].startswith("static inline"):
        head = []
        for line in code:
            head.append(line.split("{")[0].rstrip())
            if "{" in line:
                break
        return [*head[:-1], head[-1] + ";"]
    return code


def main() -> None:
    output, headers = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    text = "\n".join(render(path) for path in headers)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
