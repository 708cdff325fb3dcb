"""Find instructions that touch registers of an asynchronous product in flight.

`ptx_lint.py FILE.ptx` follows each path through the one kernel of the file. Between a
wgmma.mma_async and the wait that retires its group, nothing may read or write its
accumulators, nothing may write its A registers, and no other product may use only some
of its accumulators. Prints the first breaches, then `N products, M waits, H hazards`; exit
status 1 if there are hazards.
"""

import re
import sys

LABEL = re.compile(r"([$\w]+):(?!:)")
REGISTER = re.compile(r"%[a-z]+\d+")
BRANCH = re.compile(r"(@!?%\w+\s+)?bra(?:\.uni)?\s+([$\w]+)$")
PRODUCT = re.compile(r"wgmma\.mma_async\S*\s*\{([^}]*)\}\s*,\s*(?:\{([^}]*)\})?")
WAIT = re.compile(r"wgmma\.wait_group\S*\s+(\d+)")
# Instructions whose first operand is read.
NO_RESULT = re.compile(r"(@!?%\w+\s+)?(st|red|bar|bra|cp|mbarrier|prefetch|fence|stmatrix)\b")
MOST_GROUPS = 8
MOST_LINES = 10


def parse(text):
    """Return statements [(line, text)] of the kernel's body, and {label: index}.

    Blocks in braces, as inline assembly writes them, count as straight code.
    """
    text = re.sub(r"//[^\n]*", "", text)
    start = text.index("{", text.index(".entry")) + 1
    line, depth = text.count("\n", 0, start) + 1, 1
    statements, labels = [], {}
    for piece in text[start:].split(";"):
        rest = piece
        while True:
            rest = rest.lstrip()
            label = LABEL.match(rest)
            if rest[:1] in ("{", "}"):
                depth += 1 if rest[0] == "{" else -1
                rest = rest[1:]
            elif label:
                if depth == 1:
                    labels[label[1]] = len(statements)
                rest = rest[label.end() :]
            else:
                break
        declares = not rest or rest.startswith(".")
        if depth > 0 and not declares and not (depth > 1 and BRANCH.match(rest)):
            statements.append((line + piece.count("\n"), rest.strip()))
        line += piece.count("\n")
    return statements, labels


def registers(text):
    return tuple(REGISTER.findall(text or ""))


def merge(a, b):
    """Join two states (groups in flight, the newest last); None is no state."""
    if a is None or b is None:
        return b if a is None else a
    size = max(len(a), len(b))
    pad = lambda groups: (frozenset(),) * (size - len(groups)) + groups  # noqa: E731
    return tuple(x | y for x, y in zip(pad(a), pad(b), strict=True))


def hazards(text, products):
    """Registers of products in flight that the statement must not touch."""
    used = set(registers(text))
    product = PRODUCT.search(text)
    found = set()
    for d, a in products:
        if product:
            other = registers(product[1])
            if set(other) & set(d) and other != d:
                found |= set(other) & set(d)
            found |= set(registers(product[2])) & set(d)
            continue
        found |= used & set(d)
        if not NO_RESULT.match(text):
            found |= set(registers(text)[:1]) & set(a)
    return found


def step(text, state):
    """The state behind a statement. The last group is the open one."""
    product = PRODUCT.search(text)
    wait = WAIT.search(text)
    if product:
        issued = (registers(product[1]), registers(product[2]))
        return (*state[:-1], state[-1] | {issued})
    if "wgmma.commit_group" in text:
        closed = (*state, frozenset())
        if len(closed) > MOST_GROUPS:
            closed = (closed[0] | closed[1], *closed[2:])
        return closed
    if wait:
        keep = int(wait[1]) + 1
        return state[-keep:] if keep <= len(state) else state
    return state


def main(path):
    with open(path, encoding="ascii") as file:
        statements, labels = parse(file.read())
    before = {0: (frozenset(),)}
    work, reported = [0], {}
    while work:
        at = work.pop()
        if at >= len(statements):
            continue
        line, text = statements[at]
        state = before[at]
        touched = hazards(text, set().union(*state))
        if touched:
            reported[at] = f"line {line}: {text[:80]} touches {' '.join(sorted(touched)[:4])}"
        after = step(text, state)
        branch = BRANCH.match(text)
        targets = [labels[branch[2]]] if branch else []
        ends = re.match(r"(ret|exit|trap)\b", text) or (branch and not branch[1])
        if not ends:
            targets.append(at + 1)
        for target in targets:
            joined = merge(before.get(target), after)
            if joined != before.get(target):
                before[target] = joined
                work.append(target)
    for at in sorted(reported)[:MOST_LINES]:
        print(reported[at])
    products = sum(bool(PRODUCT.search(text)) for _, text in statements)
    waits = sum(bool(WAIT.search(text)) for _, text in statements)
    print(f"{products} products, {waits} waits, {len(reported)} hazards")
    return 1 if reported else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
