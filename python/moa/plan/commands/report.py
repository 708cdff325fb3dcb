"""Write RUN/report.html: one page with what a run has so far."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="folder of a run")


def run(args: argparse.Namespace) -> int:
    from ..report import write_report
    from ..runfolder import RunFolder

    print(write_report(RunFolder(args.run_folder)))
    return 0
