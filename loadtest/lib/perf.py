"""Samples of perf, folded: which functions a processor is in, and by which way it came there."""

import re
import subprocess
from collections import Counter

from .procs import Failure

HERTZ = 1999
FRAME = re.compile(r"^\s+[0-9a-f]+ (.*) \(([^()]*)\)$")
NOT_KERNEL = {"[unknown]", "[vdso]", "[heap]", "[stack]"}
# The hash that a compiler puts behind a Rust name, and what perf puts behind any.
SUFFIX = re.compile(r"(::h[0-9a-f]{16})?(\+0x[0-9a-f]+)?$")


def record(pids, path):
    """Starts to sample; to be ended with SIGINT. A timer, because virtual machines lack counters of the processor."""
    command = ["perf", "record", "-q", "-F", str(HERTZ), "-e", "cpu-clock", "-g", "-o", str(path),
               "-p", ",".join(str(pid) for pid in pids)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def folded(path):
    """How often each stack was seen: a tuple of (name, is kernel), outermost first."""
    done = subprocess.run(["perf", "script", "-i", str(path), "--no-inline", "-F", "comm,ip,sym,dso"],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"perf script: {done.stderr[-1000:]}")
    stacks, frames = Counter(), []
    for line in [*done.stdout.splitlines(), ""]:
        match = FRAME.match(line)
        if match:
            name, where = match.groups()
            frame = (SUFFIX.sub("", name), where.startswith("[") and where not in NOT_KERNEL)
            # A program without frame pointers gives long rows of nothing.
            if name != "[unknown]" or not frames or frames[-1] != frame:
                frames.append(frame)
        elif not line.strip() and frames:
            stacks[tuple(reversed(frames))] += 1
            frames = []
    if not stacks:
        raise Failure("perf took no samples; as another user than root it needs "
                      "'sysctl kernel.perf_event_paranoid=1' or less")
    return stacks


def by_leaf(stacks):
    """How often each function was where the processor was."""
    leaves = Counter()
    for stack, count in stacks.items():
        leaves[stack[-1]] += count
    return leaves


def by_presence(stacks):
    """How often each function was anywhere in the stack."""
    present = Counter()
    for stack, count in stacks.items():
        for frame in set(stack):
            present[frame] += count
    return present
