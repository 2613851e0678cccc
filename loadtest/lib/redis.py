"""A Redis of the command's own, and as much of its protocol as edits need."""

import json
import socket
import time

from . import procs


class Client:
    """Sends commands and reads replies; errors are raised."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def __call__(self, *words):
        return self.all([words])[0]

    def all(self, commands):
        """The replies to many commands, sent at once."""
        self.socket.sendall(b"".join(_packed(words) for words in commands))
        return [self._reply() for _ in commands]

    def _reply(self):
        line = self.file.readline()
        if not line:
            raise procs.Failure("redis closed the connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise procs.Failure(f"redis: {rest}")
        if kind == b"$":
            return None if rest == "-1" else self.file.read(int(rest) + 2)[:-2].decode(errors="replace")
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        return int(rest) if kind == b":" else rest


def _packed(words):
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


class Server:
    """A redis-server without persistence."""

    def __init__(self, cores=None, port=None):
        self.port, self.cores = port or procs.free_port(), cores
        self.start()

    def start(self):
        command = ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                   # A replica keeps a copy of its master's data, which no other server may load.
                   "--dbfilename", f"redis-{self.port}.rdb"]
        self.process = procs.Process(command, self.cores, f"redis-{self.port}").await_port(self.port)

    def client(self):
        return Client(self.port)

    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def end(self):
        self.process.end(patience=0.1)


def start_sluice(build_dir, driver, cores, server=None, admin=None):
    """A sluice with a worker a core whose routes come from `driver`. Returns the process and its port."""
    port = procs.free_port()
    folder = procs.work_dir() / f"sluice-{port}"
    folder.mkdir()
    folder.chmod(0o777)
    config = folder / "config.json"
    config.write_text(json.dumps({
        "server": {"workers": len(cores), "cpus": ",".join(map(str, cores)), "accessLog": False, **(server or {})},
        "http": {"port": port, "bind": "127.0.0.1"},
        "driver": driver,
        **({} if admin is None else {"admin": admin}),
    }))
    process = procs.Process([build_dir / "sluice", "--config", config], None, folder.name)
    return process.await_port(port), port


class Asker:
    """A keep-alive connection to a proxy."""

    def __init__(self, port):
        self.port, self.socket = port, None

    def ask(self, host):
        """Status and body."""
        try:
            if self.socket is None:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                self.file = self.socket.makefile("rb")
            self.socket.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            status, length, closes = int(self.file.readline().split()[1]), 0, False
            for line in iter(self.file.readline, b"\r\n"):
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
                closes |= name.lower() == b"connection" and b"close" in value
            body = self.file.read(length).decode()
            if closes:
                self.socket = None
            return status, body
        except (OSError, ValueError, IndexError) as error:
            self.socket = None
            return 0, str(error)


def await_true(what, condition, seconds=30):
    """How long it took until `condition` held, in seconds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise procs.Failure(f"waited {seconds} s in vain: {what}")
        time.sleep(0.001)
    return time.monotonic() - begun
