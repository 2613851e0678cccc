"""Load generators, each run to its end and understood."""

import http.client
import json
import os
import ssl
import subprocess
from dataclasses import dataclass, field

from . import procs
from .procs import Failure

MARK = "sluice-wrk-summary "

# What wrk prints for people rounds too much; this is asked of it once, at its end.
SUMMARY_LUA = """
function done(summary, latency, requests)
    local e = summary.errors
    local closing = 0
    for _, thread in ipairs(threads or {}) do closing = closing + thread:get("closing") end
    io.write(string.format('%s{"requests":%%d,"duration_us":%%d,"bytes":%%d,"connect":%%d,"read":%%d,"write":%%d,' ..
        '"status":%%d,"timeout":%%d,"closing":%%d}\\n', summary.requests, summary.duration, summary.bytes,
        e.connect, e.read, e.write, e.status, e.timeout, closing))
end
""" % MARK

# wrk opens another connection and says nothing when an answer ends one.
CLOSING_LUA = """
threads, closing = {}, 0
function setup(thread) table.insert(threads, thread) end
function response(status, headers)
    if string.lower(headers["Connection"] or headers["connection"] or "") == "close" then closing = closing + 1 end
end
"""


@dataclass
class Load:
    """What a load generator saw."""
    requests: int
    seconds: float
    # What went wrong, by name, with how often.
    errors: dict = field(default_factory=dict)
    latency_us: dict = field(default_factory=dict)

    def per_second(self):
        return self.requests / self.seconds if self.seconds else 0.0


def run(command, cores, seconds, is_prompt=False):
    """Runs a load generator on `cores`, or on any where that is None, and returns what it printed. It is killed when it
    takes far too long. A prompt one goes before all else on its core, if the system allows that."""
    def in_child():
        procs.die_with_parent()
        if is_prompt:
            procs.go_first()
        if cores:
            os.sched_setaffinity(0, cores)
    try:
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                              timeout=seconds * 2 + 60, preexec_fn=in_child)
    except subprocess.TimeoutExpired as late:
        raise Failure(f"{command[0]} did not end: {late}") from late
    if done.returncode != 0:
        raise Failure(f"{' '.join(str(part) for part in command)} failed:\n{done.stderr[-1000:]}{done.stdout[-1000:]}")
    return done.stdout


def wrk(port, work, cores, seconds, address="127.0.0.1"):
    """wrk with one thread over the connections of a row."""
    script = procs.work_dir() / f"{work.key}.lua"
    script.write_text(work.lua + (CLOSING_LUA if work.keeps else "") + SUMMARY_LUA)
    command = ["wrk", "-t1", f"-c{work.connections}", f"-d{seconds}s", "--timeout", "10s", "-s", script,
               "-H", f"Host: {work.host}", *(part for header in work.headers for part in ("-H", header)),
               f"{'https' if work.variant.tls else 'http'}://{address}:{port}{work.path}"]
    printed = run(command, cores, seconds)
    lines = [line for line in printed.splitlines() if line.startswith(MARK)]
    if not lines:
        raise Failure(f"wrk gave no summary:\n{printed}")
    summary = json.loads(lines[-1][len(MARK):])
    kinds = ("connect", "read", "write", "status", "timeout", "closing")
    errors = {kind: summary[kind] for kind in kinds if summary[kind]}
    if summary["bytes"] < summary["requests"] * work.body_bytes:
        errors["bodies too short"] = 1
    return Load(summary["requests"], summary["duration_us"] / 1e6, errors)


def websocket(build_dir, port, work, cores, seconds):
    """Messages that came back, as requests."""
    printed = json.loads(run([build_dir / "examples/wsload", "load", "--target", f"127.0.0.1:{port}",
                              "--host", work.host, "--connections", work.connections, "--size", work.body_bytes,
                              "--seconds", seconds], cores, seconds))
    errors = dict(printed["errors"])
    if printed["failed"]:
        errors["messages or handshakes without an answer"] = printed["failed"]
    return Load(printed["echoed"], printed["seconds"], errors,
                {"p50": printed["p50_us"], "p99": printed["p99_us"]})


def paced_websocket(build_dir, port, connections, cores, seconds, pace_ms=100):
    """Messages that came back over tunnels with a pace, what went wrong, and the longest round trip of each tunnel in each
    second."""
    said = json.loads(run([build_dir / "examples/wsload", "load", "--target", f"127.0.0.1:{port}", "--connections",
                           connections, "--seconds", seconds, "--pace", pace_ms], cores, seconds))
    errors = dict(said["errors"])
    if said["failed"]:
        errors["messages or handshakes without an answer"] = said["failed"]
    return said["echoed"], errors, said["pauses_us"]


def event_streams(build_dir, port, connections, cores, seconds):
    """The same of streams of events: the pause is the time beyond that of the backend."""
    said = json.loads(run([build_dir / "examples/wsload", "follow", "--target", f"127.0.0.1:{port}", "--connections",
                           connections, "--seconds", seconds], cores, seconds))
    return said["events"], dict(said["errors"]), said["pauses_us"]


def paced(build_dir, port, cores, seconds, rate, connections=64, requests=None, host="www.test", path="/",
          answer_at=None, settle=0, is_prompt=True):
    """Requests at a fixed rate, or, with rate 0, as fast as answers come; and everything the generator says. One that is
    the backend as well, on the port `answer_at`, goes before all else on its core, unless it is not to be `is_prompt`."""
    command = [build_dir / "examples/paced_client", "--target", f"127.0.0.1:{port}", "--host", host, "--path", path,
               "--connections", connections]
    command += ["--rate", rate] if rate else []
    command += ["--requests", requests] if requests else ["--seconds", seconds]
    command += ["--response-at", f"127.0.0.1:{answer_at}"] if answer_at else []
    command += ["--settle", settle] if settle else []
    said = json.loads(run(command, cores, seconds, is_prompt=is_prompt and answer_at is not None))
    errors = dict(said["socket_errors"])
    errors.update({f"status {status}": count for status, count in said["statuses"].items() if status[0] != "2"})
    errors.update({kind: said[kind] for kind in ("unanswered", "unsent") if said[kind]})
    latency = {name: said[f"{name}_us"] for name in ("p50", "p99", "p999", "max")}
    return Load(said["good"], said["seconds"], errors, latency), said


def probe(port, work):
    """One request as the row makes it, to see that it is answered as it should be."""
    if work.variant.tls:
        believing = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=believing)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        method, body = ("POST", b"p" * 1024) if work.lua_method == "POST" else ("GET", None)
        connection.request(method, work.path, body=body, headers={"Host": work.host})
        answer = connection.getresponse()
        length = len(answer.read())
    except (OSError, http.client.HTTPException) as error:
        return f"no answer: {error!r}"
    finally:
        connection.close()
    if answer.status != 200:
        return f"status {answer.status}"
    if length != work.body_bytes:
        return f"a body of {length} bytes instead of {work.body_bytes}"
    return None
