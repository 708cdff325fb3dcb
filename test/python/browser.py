"""Headless Chromium by its debugging pipe: opens a page, runs scripts in it."""

import contextlib
import json
import os
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """Commands go to the browser's fd 3, answers come from its fd 4, ended by NUL."""

    def __init__(self, write, read):
        self._write, self._read, self._rest, self._number = write, read, b"", 0
        self._session = {}
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        found = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": found["sessionId"]}

    def _call(self, method, **params):
        self._number += 1
        sent = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._write, json.dumps(sent).encode() + b"\0")
        while True:
            while b"\0" not in self._rest:
                part = os.read(self._read, 1 << 16)
                assert part, "the browser ended"
                self._rest += part
            message, self._rest = self._rest.split(b"\0", 1)
            answer = json.loads(message)
            if answer.get("id") == self._number:
                return answer["result"]

    def open(self, address):
        self._call("Page.navigate", url=address)
        self.until(
            f"location.href == {json.dumps(address)} && document.readyState == 'complete'"
        )

    def run(self, script):
        """The value of a script."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script, seconds=30.0):
        """Waits until a script is true."""
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"{script}: {self.run('document.body.innerText')}"
            time.sleep(0.05)


@contextlib.contextmanager
def browse(folder):
    """A page of a browser whose profile is in a folder."""
    their_read, our_write = os.pipe()
    our_read, their_write = os.pipe()
    # The browser wants its ends as 3 and 4, whatever these are here.
    script = f'exec 3<&{their_read} 4>&{their_write}; exec "$@"'
    process = subprocess.Popen(
        [
            "bash", "-c", script, "bash", BROWSER, "--headless", "--no-sandbox",
            "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            f"--user-data-dir={folder}",
        ],
        pass_fds=(their_read, their_write), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(their_read)
    os.close(their_write)
    try:
        yield Page(our_write, our_read)
    finally:
        process.terminate()
        process.wait(timeout=30)
        os.close(our_write)
        os.close(our_read)
