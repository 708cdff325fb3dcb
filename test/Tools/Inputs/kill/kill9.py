"""Kills a command at random moments over its run time and checks what is left.

    kill9.py [--kills N] [--check COMMAND] [--cache FOLDER] FILE -- COMMAND

COMMAND writes FILE. Its run time is cut in N parts (MOA_KILLS asks for others), and
a run is killed (SIGKILL) somewhere in each. It leaves FILE as it was before or as a
whole run makes it, and CHECK, a shell command that gets the path as {}, accepts
what is new. A whole run behind the kills succeeds and makes the same bytes
again. FOLDER is emptied before every other kill: the run behind it finds what a
killed one left there.
"""

import argparse
import os
import random
import shlex
import shutil
import subprocess
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--check", default="true")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    file, command = args.file, args.command
    kills = int(os.environ.get("MOA_KILLS", args.kills))

    begin = time.monotonic()
    subprocess.run(command, check=True)
    whole_time = time.monotonic() - begin
    new = file.read_bytes()
    old = new + b"the old file is longer and differs"
    left = {"old": 0, "new": 0}
    for i in range(kills):
        file.write_bytes(old)
        if args.cache and i % 2 == 0:
            shutil.rmtree(args.cache, ignore_errors=True)
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(whole_time * 1.1 * (i + random.random()) / kills)
        run.kill()
        run.wait()
        found = file.read_bytes()
        assert found in (old, new), (
            f"kill {i}: {len(found)} bytes, expected those of before or new"
        )
        left["new" if found == new else "old"] += 1
        if found == new:
            subprocess.run(
                args.check.replace("{}", shlex.quote(str(file))), shell=True, check=True
            )
    # Whatever the killed runs left beside the file is not in the way.
    subprocess.run(command, check=True)
    assert file.read_bytes() == new, "a run behind the kills makes other bytes"
    assert left["old"], "no kill came before the file was there"
    print(f"{kills} kills: {left['old']} old, {left['new']} new, none between")


if __name__ == "__main__":
    main()
