"""Rows are measured: all peers in turn, there and back, again and again."""

import statistics
import time
from dataclasses import dataclass, field

from . import clients, peers
from .procs import Failure
from .workloads import PLAIN


@dataclass
class Sample:
    """One peer once."""
    us_a_request: float = 0.0
    system_share: float = 0.0
    per_second: float = 0.0
    errors: dict = field(default_factory=dict)
    latency_us: dict = field(default_factory=dict)


@dataclass
class Row:
    """All samples of a row: a list a participant, which is a peer and its variant. Sample n of one was taken beside
    sample n of every other."""
    work: object
    samples: dict = field(default_factory=dict)

    def errors(self, participant):
        total = {}
        for sample in self.samples.get(participant, []):
            for kind, count in sample.errors.items():
                total[kind] = total.get(kind, 0) + count
        return total

    def median(self, participant, value=lambda sample: sample.us_a_request):
        samples = self.samples.get(participant)
        if not samples or self.errors(participant):
            return None
        return statistics.median(value(sample) for sample in samples)

    def ratio(self, participant, base, value=lambda sample: sample.us_a_request):
        """The median of the ratios of what was measured side by side."""
        if self.median(participant, value) is None or not self.median(base, value):
            return None
        pairs = zip(self.samples[participant], self.samples[base])
        return statistics.median(value(one) / value(other) for one, other in pairs)

    def best_peer(self, value=lambda sample: sample.us_a_request):
        """The participant of least cost that is neither the floor nor sluice."""
        rivals = [(name, self.work.variant) for name in peers.PEERS if name not in ("floor", "sluice")]
        costs = [(self.median(rival, value), rival) for rival in rivals if self.median(rival, value) is not None]
        return min(costs, key=lambda cost: cost[0])[1] if costs else None


@dataclass(frozen=True)
class Cores:
    """Who runs where. With two cores, load and backends share the one that a single worker leaves free."""
    proxy: tuple
    load: frozenset
    backend: frozenset

    @staticmethod
    def of(count):
        if count < 2:
            raise Failure("at least two cores are needed: one for the proxy, one for everything else")
        load, backend = {2: (1, 1), 3: (2, 2)}.get(count, (2, 3))
        return Cores((0, 1), frozenset({load}), frozenset({backend}))

    def text(self, workers=1):
        return (f"proxy on core {' and '.join(str(core) for core in self.proxy[:workers])}, load generator on core "
                f"{min(self.load)}, backend on core {min(self.backend)}")


class Bench:
    """Proxies that run, started when they are needed first."""

    def __init__(self, build_dir, backends, cores):
        self.build_dir, self.backends, self.cores = build_dir, backends, cores
        self._running = {}

    def proxy(self, participant):
        running = self._running.get(participant)
        if running is None or not running.is_running():
            running = peers.start(*participant, self.cores.proxy, self.backends, self.build_dir)
            self._running[participant] = running
        return running

    def end(self, participant):
        running = self._running.pop(participant, None)
        if running:
            running.end()

    def end_others_than(self, variant):
        for participant in [one for one in self._running if one[1] != variant]:
            self.end(participant)

    def measure(self, work, names, runs, seconds):
        """A row: every peer of `names`, `runs` times."""
        participants = [(name, work.variant) for name in names if peers.can(name, work.variant)]
        participants += [extra for extra in work.also if extra[0] in names]
        row = Row(work, {participant: [] for participant in participants})
        for participant in participants:
            self._warm_up(row, participant)
        for run in range(runs):
            # There and back: what changes slowly on the machine then meets all alike.
            for participant in participants if run % 2 == 0 else reversed(participants):
                if not row.errors(participant):
                    row.samples[participant].append(self._sample(work, participant, seconds))
        self.end_others_than(PLAIN)
        return row

    def _warm_up(self, row, participant):
        """One request that is looked at, and a second of load that is not."""
        try:
            running = self.proxy(participant)
            work = row.work.as_asked_of(participant[1])
            wrong = None if work.websocket else clients.probe(running.port(work.host), work)
            if wrong:
                row.samples[participant].append(Sample(errors={wrong: 1}))
                return
            self.load(running, work, 1)
        except Failure as failure:
            row.samples[participant].append(Sample(errors={str(failure): 1}))

    def _sample(self, work, participant, seconds):
        running = self.proxy(participant)
        return take_sample(running, lambda: self.load(running, work.as_asked_of(participant[1]), seconds))

    def load(self, running, work, seconds):
        """A row's load on a proxy, to its end."""
        port = running.port(work.host)
        with running.scraped():
            if work.websocket:
                return clients.websocket(self.build_dir, port, work, self.cores.load, seconds)
            return clients.wrk(port, work, self.cores.load, seconds)


def take_sample(running, load_it):
    """What a load on a proxy came to, which `load_it` brings to its end, and what it cost."""
    settle(running)
    user, system = running.cpu_seconds()
    try:
        load = load_it()
    except Failure as failure:
        return Sample(errors={str(failure): 1})
    user, system = (after - before for after, before in zip(running.cpu_seconds(), (user, system)))
    if not running.is_running():
        load.errors["the proxy ended"] = 1
    if not load.requests:
        load.errors["no request was answered"] = 1
        return Sample(errors=load.errors)
    return Sample((user + system) * 1e6 / load.requests, system / max(user + system, 1e-9),
                  load.per_second(), load.errors, load.latency_us)


def settle(running, seconds=3):
    """Waits until a proxy is done with what came before."""
    deadline = time.monotonic() + seconds
    before = None
    while time.monotonic() < deadline:
        now = running.cpu_seconds()
        if now == before:
            return
        before = now
        time.sleep(0.05)
