"""The report of a run: refused where there is none, and opened in a browser."""

import shutil
import subprocess

import pytest

import planner_model
from moa.plan.cli import main
from planner_model import FEW, refused

one_thread, tiny = planner_model.one_thread, planner_model.tiny
pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_report_of_nothing_is_refused(tmp_path, capsys):
    refused(capsys, ["report", str(tmp_path)], "expected profile/N/summary.npz")


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_the_report_opens_in_a_browser(tiny, tmp_path):
    """Headless Chromium lays it out, shows every picture and asks for nothing else."""
    profiled = [
        "profile", str(tiny), "--out", str(tmp_path), "--lengths", "256", "--items", "2",
        "--data", "summarise", *FEW, "--block", "16", "--entries", "--check-rules", "2",
    ]  # fmt: skip
    assert main(profiled) == 0 and main(["report", str(tmp_path)]) == 0
    probe = (
        "<script>document.title = [document.images.length, "
        "[...document.querySelectorAll('svg')].filter(x => x.getBoundingClientRect().width > 9)"
        ".length, performance.getEntriesByType('resource').length].join(' ')</script></body>"
    )
    page = tmp_path / "report.html"
    text = page.read_text()
    page.write_text(text.replace("</body>", probe))
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
         f"--user-data-dir={tmp_path / 'profile-of-chromium'}", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pictures = text.count("<svg")
    assert pictures > 0 and f"<title>0 {pictures} 0</title>" in done.stdout
