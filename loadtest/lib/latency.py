"""Latency at a fixed rate below saturation, counted from the moment each request should have been sent."""

import statistics

from . import clients
from .measure import Sample, settle
from .procs import Failure
from .works import PLAIN, WORKS

PERCENTILES = ("p50", "p99", "p999")
# A p99.9 is made by a few moments of a run, so its median takes more runs than that of a cost does.
RUNS_FOR_ONE = 3


def half_of_slowest(rates):
    """Half of what the slowest peer can do, in round numbers."""
    return max(500, int(min(rates) / 2) // 500 * 500)


def find_rate(names, small_row, lab):
    """From the row of small requests, or else from a second of load each."""
    rates = [small_row.median((name, PLAIN), lambda sample: sample.per_second) for name in names] if small_row else []
    if not rates or None in rates:
        rates = []
        for name in names:
            try:
                rates.append(lab.load(lab.proxy((name, PLAIN)), WORKS[0], 1).per_second())
            except Failure:
                # Its own row tells.
                continue
    return half_of_slowest(rates or [0])


def measure(names, rate, runs, seconds, lab):
    """All samples of every peer, taken in turn, there and back."""
    found = {name: [] for name in names}
    for run in range(runs * RUNS_FOR_ONE):
        for name in names if run % 2 == 0 else reversed(names):
            try:
                running = lab.proxy((name, PLAIN))
                settle(running)
                load, _ = clients.paced(lab.build_dir, running.port("www.test"), lab.cores.load, seconds, rate,
                                        is_prompt=True)
                found[name].append(Sample(per_second=load.per_second(), errors=load.errors,
                                          latency_us=load.latency_us))
            except Failure as failure:
                found[name].append(Sample(errors={str(failure): 1}))
    return found


def medians(samples):
    """Each percentile's median over the runs; `None` where anything failed."""
    if not samples or any(sample.errors for sample in samples):
        return None
    return {name: statistics.median(sample.latency_us[name] for sample in samples) for name in PERCENTILES}
