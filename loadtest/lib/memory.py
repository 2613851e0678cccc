"""What an idle client connection and an idle tunnel cost in memory."""

import socket
import statistics
from dataclasses import dataclass

from . import peers, procs
from .measure import settle
from .procs import Failure
from .workloads import PLAIN

REQUEST = b"GET / HTTP/1.1\r\nHost: www.test\r\n\r\n"
# The example of RFC 6455, section 1.3; the echo backend takes no other key.
UPGRADE = (b"GET /ws HTTP/1.1\r\nHost: ws.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
ECHOED = bytes([0x82, 0x05]) + b"hello"
MESSAGE = bytes([0x82, 0x85, 0, 0, 0, 0]) + b"hello"


@dataclass
class Memory:
    """KiB for each open connection."""
    connections: int
    rss_kib: float = 0.0
    private_kib: float = 0.0
    error: str = ""


def measure(names, tunnel, wanted, runs, bench):
    """The median of `runs` fresh starts of every peer, there and back."""
    # A proxy has two sockets a tunnel, and so has the floor for every client.
    count = min(wanted, (procs.descriptor_limit() - 1000) // 2)
    found = {name: [] for name in names}
    for run in range(runs):
        for name in names if run % 2 == 0 else reversed(names):
            found[name].append(_measure_once(name, tunnel, count, bench))
    return {name: _median(count, samples) for name, samples in found.items()}


def _median(count, samples):
    failed = [sample.error for sample in samples if sample.error]
    if failed:
        return Memory(count, error=failed[0])
    return Memory(count, statistics.median(sample.rss_kib for sample in samples),
                  statistics.median(sample.private_kib for sample in samples))


def _measure_once(name, tunnel, count, bench):
    try:
        running = peers.start(name, PLAIN, bench.cores.proxy, bench.backends, bench.build_dir)
    except Failure as failure:
        return Memory(count, error=str(failure))
    opened = []
    try:
        port = running.port("ws.test" if tunnel else "www.test")
        open_one = open_tunnel if tunnel else _open_keep_alive
        # What is there once and for all, such as pools and connections to the backend, is no cost of an idle
        # connection. So the first tenth only sets the stage, and the rest is weighed.
        while len(opened) < count // 10:
            opened.append(open_one(port))
        settle(running)
        rss, private = running.memory()
        weighed = count - len(opened)
        while len(opened) < count:
            opened.append(open_one(port))
        settle(running)
        rss_after, private_after = running.memory()
        if not running.is_running():
            return Memory(count, error="the proxy ended")
        closed = sum(1 for client in opened if _is_closed(client))
        if closed:
            return Memory(count, error=f"{closed} of {count} connections were closed")
        return Memory(count, (rss_after - rss) / weighed, (private_after - private) / weighed)
    except (OSError, Failure) as error:
        return Memory(count, error=f"after {len(opened)} connections: {error}")
    finally:
        for client in opened:
            client.close()
        running.end()


def _open_keep_alive(port):
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(REQUEST)
    read_answer(client)
    return client


def read_answer(client):
    """Reads an answer that tells its length."""
    head, body = _read_head(client)
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                   if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += _receive(client)


def open_tunnel(port):
    """A tunnel over which one message went there and back."""
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(UPGRADE)
    head, _ = _read_head(client)
    if not head.startswith(b"HTTP/1.1 101 "):
        raise OSError(f"the handshake was answered with {head.splitlines()[0]!r}")
    client.sendall(MESSAGE)
    echoed = b""
    while len(echoed) < len(ECHOED):
        echoed += _receive(client)
    if echoed != ECHOED:
        raise OSError("the echo is not what was sent")
    return client


def _read_head(client):
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(client)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _receive(client):
    data = client.recv(65536)
    if not data:
        raise OSError("the connection was closed")
    return data


def _is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
