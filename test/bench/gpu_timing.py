"""Ways of timing device work, always named in the records.

clean      median of single runs; L2 holds other lines, brought by reads
do_bench   triton's, whose flush writes: the run pays for the write-back
graph      per call, a CUDA graph of many calls, replayed back to back
queued     per call, of calls queued back to back, by the host's clock
"""

import statistics
import time

import torch


class Timer:
    """Times what is enqueued on torch's current stream, in microseconds."""

    def __init__(self):
        # Twice any L2 cache; read, not written.
        self.other = torch.ones(128 << 20, dtype=torch.int32, device="cuda")

    def flush(self):
        self.other.max()
        self.other.max()

    def between(self, run):
        """One run between two events. Work ahead of it keeps the device busy while
        the host enqueues, so that no host time is in the figure."""
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.flush()
        start.record()
        run()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) * 1e3

    def clean(self, run, budget_ms=400):
        self.between(run)
        once = self.between(run) * 1e-3
        repeats = max(5, min(30, int(budget_ms / max(once, 1e-3))))
        return statistics.median(self.between(run) for _ in range(repeats))

    def do_bench(self, run, rep=100):
        from triton.testing import do_bench

        return do_bench(run, warmup=25, rep=rep, return_mode="median") * 1e3

    def repeated(self, run, calls, budget_ms=150):
        """Of one call, where `run` makes `calls` of them: median over rounds of
        runs that follow each other."""
        run()
        once = self.between(run) * 1e-3
        rounds = 5
        runs = max(2, min(50, int(budget_ms / rounds / max(once, 1e-3))))

        def several():
            for _ in range(runs):
                run()

        return statistics.median(self.between(several) for _ in range(rounds)) / runs / calls

    def queued(self, run, wait, repeats=20):
        """By the host's clock; for libraries with streams of their own."""
        wait(run())
        begun = time.perf_counter()
        for _ in range(repeats):
            last = run()
        wait(last)
        return (time.perf_counter() - begun) / repeats * 1e6
