"""Processes: started on given cores, measured through /proc, and always ended."""

import atexit
import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
WANTED_DESCRIPTORS = 65536
PR_SET_PDEATHSIG = 1
# Below the ports that the kernel gives to outgoing connections: a port that is free now stays free.
FIRST_PORT, LAST_PORT = 20000, 32000

_libc = ctypes.CDLL(None, use_errno=True)
_running = []
_work_dir = None
_next_port = FIRST_PORT


class Failure(Exception):
    """Something that ends the command, with a sentence for the user."""


def prepare(keep):
    """Raises the limits, makes the work folder, and sees to it that everything ends with this process."""
    global _work_dir
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, WANTED_DESCRIPTORS) if os.geteuid() == 0 else hard
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # In /tmp and open to all: proxies started as root read and log as another user.
    _work_dir = Path(tempfile.mkdtemp(prefix="sluice-load-"))
    _work_dir.chmod(0o777)
    atexit.register(_clean_up, keep)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    return _work_dir


def work_dir():
    return _work_dir


def descriptor_limit():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _clean_up(keep):
    for process in list(_running):
        process.end()
    if not keep:
        shutil.rmtree(_work_dir, ignore_errors=True)


def free_port():
    """A port of 127.0.0.1 on which nothing listens, given out once."""
    global _next_port
    while _next_port < LAST_PORT:
        _next_port += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port))
            except OSError:
                continue
            return _next_port
    raise Failure(f"no free port of 127.0.0.1 between {FIRST_PORT} and {LAST_PORT}")


def die_with_parent():
    """To be called in a child before it becomes another program: not even a killed test leaves anything behind."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def go_first(task=0, really=True):
    """Has a thread, by itself the caller, run before all that is not of this kind, or no longer. Kernel code that runs
    already still goes on. False if the system does not allow it."""
    try:
        os.sched_setscheduler(task, os.SCHED_FIFO if really else os.SCHED_OTHER, os.sched_param(1 if really else 0))
    except PermissionError:
        return False
    return True


class Process:
    """A process in a session of its own, with its children."""

    def __init__(self, command, cores, name, env=None):
        self.name = name
        self.log_path = work_dir() / f"{name}.out"

        def in_child():
            die_with_parent()
            if cores:
                os.sched_setaffinity(0, cores)

        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=work_dir(), start_new_session=True, preexec_fn=in_child, env=env)
        _running.append(self)

    def await_port(self, port, seconds=10):
        """Waits until the process takes connections."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.popen.poll() is not None:
                raise Failure(f"{self.name} ended with code {self.popen.returncode} at its start:\n{self.said()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return self
            except OSError:
                time.sleep(0.01)
        raise Failure(f"{self.name} does not listen on port {port} after {seconds} s:\n{self.said()}")

    def said(self):
        """The last of what it wrote."""
        return self.log_path.read_bytes()[-2000:].decode(errors="replace")

    def is_running(self):
        return self.popen.poll() is None

    def tree(self):
        """The process and all its descendants."""
        found, unseen = [], [self.popen.pid]
        while unseen:
            pid = unseen.pop()
            found.append(pid)
            for task in _tasks(pid):
                unseen += [int(child) for child in _read(f"/proc/{pid}/task/{task}/children").split()]
        return found

    def go_first(self, really=True):
        """Has it run before whatever else wants its cores, or no longer."""
        for pid in self.tree():
            for task in _tasks(pid):
                with contextlib.suppress(ProcessLookupError):
                    go_first(int(task), really)

    def cpu_seconds(self):
        """User and system time of all its threads, those that have ended included."""
        user = system = 0
        for pid in self.tree():
            # Fields are counted behind the name, which may hold spaces (proc_pid_stat(5): utime is field 14).
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if fields:
                user += int(fields[11])
                system += int(fields[12])
        return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND

    def memory(self):
        """Resident and private memory in KiB."""
        rss = private = 0
        for pid in self.tree():
            for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
                name, _, value = line.partition(":")
                if name == "Rss":
                    rss += int(value.split()[0])
                elif name == "Private_Dirty":
                    private += int(value.split()[0])
        return rss, private

    def signal(self, number):
        os.killpg(self.popen.pid, number)

    def end(self, patience=2):
        """Ends it and its children. It gets some seconds to go by itself, to write and remove its files."""
        if self in _running:
            _running.remove(self)
        for number, seconds in ((signal.SIGTERM, patience), (signal.SIGKILL, 5)):
            try:
                os.killpg(self.popen.pid, number)
            except ProcessLookupError:
                pass
            try:
                self.popen.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                continue
        # The others are to be ended all the same.
        print(f"process {self.popen.pid} ({self.name}) does not end", file=sys.stderr)


def _read(path):
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def _tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return []
