"""A sluice with its admin service, for commands that ask it."""

import http.client
import json
import threading
import time

from . import procs


def start_sluice(build_dir, driver, cores, sections=None, name=None):
    """A sluice with a worker a core whose routes come from `driver`, and its admin service. Returns the process, its port and
    that of the service (None where `sections` turn it off)."""
    sections = dict(sections or {})
    port, admin_port = procs.free_port(), procs.free_port()
    folder = procs.work_dir() / (name or f"sluice-{port}")
    folder.mkdir()
    folder.chmod(0o777)
    config = folder / "config.json"
    server = {"workers": len(cores), "cpus": ",".join(map(str, cores)), "accessLog": False,
              **sections.pop("server", {})}
    admin = sections.pop("admin", {"bind": f"127.0.0.1:{admin_port}"})
    config.write_text(json.dumps({
        "server": server, "http": {"port": port, "bind": "127.0.0.1"}, "driver": driver, "admin": admin, **sections,
    }))
    process = procs.Process([build_dir / "sluice", "--config", config], None, folder.name)
    process.await_port(port, 60)
    return process, port, admin_port if admin else None


def get(port, path, seconds=60):
    """Status, body and the time that they took, in seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    begun = time.perf_counter()
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    took = time.perf_counter() - begun
    connection.close()
    return response.status, body, took


def put(port, path):
    """Makes something by x0d's API."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("PUT", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status // 100 != 2:
        raise procs.Failure(f"PUT {path}: {response.status} {body[:200]}")


def json_of(port, path):
    status, body, _ = get(port, path)
    if status != 200:
        raise procs.Failure(f"{path}: {status} {body[:200]}")
    return json.loads(body)


class Repeating:
    """Does something again and again in a thread of its own, with a pause between, until it is left."""

    def __init__(self, action, pause):
        self.action, self.pause, self.count, self.problem = action, pause, 0, None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            while not self.stopped.is_set():
                self.action()
                self.count += 1
                self.stopped.wait(self.pause)
        except Exception as problem:  # Told by the one who waits for it.
            self.problem = problem

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        if self.problem:
            raise procs.Failure(f"in the background: {self.problem!r}")
