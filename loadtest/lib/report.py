"""The figures as Markdown. A cell without a figure was not measured, or failed and says how."""

from dataclasses import dataclass, field

from .latency import PERCENTILES, RUNS_FOR_ONE, medians
from .peers import BEFORE, Variant
from .workloads import CACHE, PLAIN


@dataclass
class Results:
    """Everything of a run of compare."""
    names: list
    runs: int
    seconds: int
    where: str
    cores: object
    versions: dict
    revision: str
    date: str
    rows: list = field(default_factory=list)
    rate: int = 0
    latency: dict = field(default_factory=dict)
    # Whether proxy and generator went before everything else there.
    goes_first: bool = False
    idle: dict = field(default_factory=dict)
    tunnels: dict = field(default_factory=dict)


def failures(results):
    """What failed, a line each."""
    lines = []
    for row in results.rows:
        for participant in row.samples:
            if row.errors(participant):
                lines.append(f"{row.work.title}: {_name(participant)}: {_listed(row.errors(participant))}")
    for name, samples in results.latency.items():
        for sample in samples:
            if sample.errors:
                lines.append(f"latency: {name}: {_listed(sample.errors)}")
    for title, found in (("idle connections", results.idle), ("idle tunnels", results.tunnels)):
        lines += [f"{title}: {name}: {_one_line(memory.error)}" for name, memory in found.items() if memory.error]
    return lines


def markdown(results):
    parts = [_heading(results)]
    if results.rows:
        parts += [_cpu_table(results), _requests_table(results)]
    if results.latency:
        parts.append(_latency_table(results))
    if results.idle or results.tunnels:
        parts.append(_memory_table(results))
    failed = failures(results)
    if failed:
        parts.append("## Failures\n\n" + "".join(f"* {line}\n" for line in failed))
    return "\n".join(parts)


def _heading(results):
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return f"""# Load test

Made by `loadtest/compare` on {results.date}: {results.where}; sluice {results.revision}, {versions}.
{results.cores.text().capitalize()}; all over 127.0.0.1. {results.runs} runs of {results.seconds} s for each figure; in
each run the proxies took their turns, forwards and backwards by turns. Figures are medians, and ratios are medians of
what was measured in the same run. The floor is a relay that copies bytes and parses nothing (`loadtest/baseline_relay.rs`). All
proxies keep connections to backends alive and add X-Forwarded-For, -Proto, -Port and X-Real-IP; buffers are the default
of each. Machines differ and drift: compare only inside one table.
"""


def _cpu_table(results):
    names = results.names
    bases = ["floor", *([BEFORE] if BEFORE in names else [])]
    lines = ["## CPU a request, in µs\n", "User and system time of the proxy's processes, divided by answered requests "
             "(or echoed messages).\n",
             _line(["work", *names, *(f"sluice ÷ {base}" for base in bases), "sluice ÷ best peer", "aim", ""]),
             "|---|" + "---:|" * (len(names) + len(bases) + 1) + "---|---|"]
    for row in results.rows:
        variant = row.work.variant
        sluice, best = ("sluice", variant), row.best_peer()
        ratio_to_best = row.ratio(sluice, best) if best else None
        lines.append(_line([
            row.work.title, *(_cell(row, (name, variant)) for name in names),
            *(_times(row.ratio(sluice, (base, variant))) for base in bases),
            f"{_times(ratio_to_best)} {best[0]}" if ratio_to_best else "",
            ", ".join(aim.text() for aim in row.work.aims), _verdicts(row)]))
        for other in dict.fromkeys(extra[1] for extra in row.work.also):
            cells = [_cell(row, (name, other)) for name in names]
            if any(cells):
                ratio = row.ratio(sluice, ("sluice", other))
                lines.append(_line([f"↳ beside it: {other.label() or 'as in the first row'}", *cells, *("" for _ in bases), "",
                                    f"the row above is {_times(ratio)} for sluice" if ratio else "", ""]))
    return "\n".join(lines) + "\n"


def _requests_table(results):
    lines = ["## Requests a second\n", "Load generator and backend may be the limit here, not the proxy.\n",
             _line(["work", *results.names]), "|---|" + "---:|" * len(results.names)]
    for row in results.rows:
        variants = dict.fromkeys([row.work.variant, *(extra[1] for extra in row.work.also)])
        for variant in variants:
            rates = [row.median((name, variant), lambda sample: sample.per_second) for name in results.names]
            if any(rates):
                title = row.work.title if variant == row.work.variant else f"↳ {variant.label() or 'as in the first row'}"
                lines.append(_line([title, *(f"{rate:,.0f}" if rate else "" for rate in rates)]))
    return "\n".join(lines) + "\n"


def _latency_table(results):
    first = (" It and the proxy go before everything else on their cores (SCHED_FIFO)." if results.goes_first else
             " The system did not let it and the proxy go before everything else: p99.9 tells of whoever else ran.")
    lines = [f"## Latency at {results.rate:,} requests a second, in µs\n",
             "64 connections, 140 B, half of what the slowest proxy can do; counted from the moment at which the "
             f"timetable says that the request leaves. One thread is generator and backend.{first} Medians of "
             f"{results.runs * RUNS_FOR_ONE} runs.\n",
             _line(["proxy", "p50", "p99", "p99.9", "CPU a request"]), "|---|---:|---:|---:|---:|"]
    found = {name: medians(results.latency[name]) for name in results.latency}
    for name, values in found.items():
        lines.append(_line([name, *(f"{values[one]:,.0f}" if values else "failed" for one in PERCENTILES),
                            f"{values['cpu']:.1f}" if values else ""]))
    rivals = [values["p999"] for name, values in found.items() if values and name not in ("floor", "sluice", BEFORE)]
    if found.get("sluice") and rivals:
        held = found["sluice"]["p999"] < min(rivals)
        lines.append(f"\nAim: sluice's p99.9 below the best peer's: {_verdict(held)}.")
    return "\n".join(lines) + "\n"


def _memory_table(results):
    lines = ["## Memory of an idle connection and an idle tunnel, in KiB\n",
             "Growth of the process from the first tenth of them to all, divided by their number. Each had one request "
             "answered, or one message echoed. The kernel's part of a socket is in no column.\n",
             _line(["proxy", "connections", "private", "resident", "tunnels", "private", "resident"]),
             "|---|" + "---:|" * 6]
    for name in results.names:
        cells = []
        for found in (results.idle, results.tunnels):
            memory = found.get(name)
            if memory is None:
                cells += ["", "", ""]
            elif memory.error:
                cells += [f"{memory.connections:,}", "failed", ""]
            else:
                cells += [f"{memory.connections:,}", f"{memory.private_kib:.2f}", f"{memory.rss_kib:.2f}"]
        lines.append(_line([name, *cells]))
    for title, found, limit in (("connection", results.idle, 0.25), ("tunnel", results.tunnels, 0.5)):
        memory = found.get("sluice")
        if memory and not memory.error:
            held = _verdict(memory.private_kib <= limit)
            lines.append(f"\nAim: an idle {title} of sluice takes at most {limit} KiB: {held}.")
    return "\n".join(lines) + "\n"


def _verdicts(row):
    verdicts = []
    for aim in row.work.aims:
        base = {"floor": ("floor", row.work.variant), "peer": row.best_peer(), "plain": ("sluice", PLAIN),
                "cache": ("sluice", CACHE), "one": ("sluice", Variant(rules=1))}[aim.of]
        ratio = row.ratio(("sluice", row.work.variant), base) if base else None
        if ratio is not None:
            verdicts.append(_verdict(ratio <= aim.times))
    return ", ".join(verdicts)


def _verdict(held):
    return "held" if held else "**open**"


def _cell(row, participant):
    if participant not in row.samples:
        return ""
    if row.errors(participant):
        return "**failed**"
    cost = row.median(participant)
    return f"{cost:.1f}" if cost is not None else ""


def _times(ratio):
    return f"{ratio:.2f} ×" if ratio else ""


def _name(participant):
    label = participant[1].label()
    return participant[0] + (f" ({label})" if label else "")


def _listed(errors):
    return ", ".join(f"{count} × {_one_line(kind)}" for kind, count in errors.items())


def _one_line(text):
    return " ".join(text.split())[:300]


def _line(cells):
    return "| " + " | ".join(cells) + " |"
