"""Run a command that must fail and must leave a folder empty.

`expect.py FOLDER STATUS TEXT.. -- COMMAND..`: the exit status is STATUS, every
TEXT is on the error stream, nothing is on the output stream, FOLDER is empty.
"""

import pathlib
import subprocess
import sys

folder, status, *rest = sys.argv[1:]
cut = rest.index("--")
texts, command = rest[:cut], rest[cut + 1 :]
done = subprocess.run(command, capture_output=True, text=True)
faults = []
if done.returncode != int(status):
    faults.append(f"expected status {status}, got {done.returncode}")
faults += [f"expected in the messages: {text}" for text in texts if text not in done.stderr]
if done.stdout:
    faults.append(f"expected no output, got {done.stdout[:200]!r}")
left = sorted(path.name for path in pathlib.Path(folder).iterdir())
if left:
    faults.append(f"expected nothing left in {folder}, found {left}")
if faults:
    print("\n".join([*faults, "messages:", done.stderr]), file=sys.stderr)
    sys.exit(1)
