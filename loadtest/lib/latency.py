"""Latency at a fixed rate below saturation, counted from the moment each request should have been sent.

A p99.9 is made by whoever else runs on the proxy's core or the generator's, for some milliseconds now and then. So the
generator is the backend as well, and both it and the proxy go before everything else, if the system allows that.
"""

import statistics

from . import clients, procs
from .backends import OWN_HOST
from .measure import Sample, take_sample
from .procs import Failure
from .workloads import PLAIN, WORKS

PERCENTILES = ("p50", "p99", "p999")
# A p99.9 is made by a few moments of a run, so its median takes more runs than that of a cost does.
RUNS_FOR_ONE = 3
# Connections are opened in this time, and their latencies do not count.
SETTLE_SECONDS = 1


def half_of_slowest(rates):
    """Half of what the slowest peer can do, in round numbers."""
    return max(500, int(min(rates) / 2) // 500 * 500)


def find_rate(names, small_row, bench):
    """From the row of small requests, or else from a second of load each."""
    rates = [small_row.median((name, PLAIN), lambda sample: sample.per_second) for name in names] if small_row else []
    if not rates or None in rates:
        rates = []
        for name in names:
            try:
                rates.append(bench.load(bench.proxy((name, PLAIN)), WORKS[0], 1).per_second())
            except Failure:
                # Its own row tells.
                continue
    return half_of_slowest(rates or [0])


def goes_first():
    """Whether the system lets somebody go before everything else."""
    return procs.go_first() and procs.go_first(really=False)


def measure(names, rate, runs, seconds, bench):
    """All samples of every peer, taken in turn, there and back."""
    found = {name: [] for name in names}
    for run in range(runs * RUNS_FOR_ONE):
        for name in names if run % 2 == 0 else reversed(names):
            try:
                found[name].append(_sample(bench, bench.proxy((name, PLAIN)), rate, seconds))
            except Failure as failure:
                found[name].append(Sample(errors={str(failure): 1}))
    return found


def _sample(bench, running, rate, seconds):
    def load():
        return clients.paced(bench.build_dir, running.port(OWN_HOST), bench.cores.load, SETTLE_SECONDS + seconds, rate,
                             host=OWN_HOST, answer_at=bench.backends[OWN_HOST][0], settle=SETTLE_SECONDS)[0]
    try:
        running.go_first()
        return take_sample(running, load)
    finally:
        running.go_first(False)


def medians(samples):
    """Each percentile's median over the runs, and that of the CPU a request; `None` where anything failed."""
    if not samples or any(sample.errors for sample in samples):
        return None
    found = {name: statistics.median(sample.latency_us[name] for sample in samples) for name in PERCENTILES}
    return found | {"cpu": statistics.median(sample.us_a_request for sample in samples)}
