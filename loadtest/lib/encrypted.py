"""WebSockets over TLS that are held open. Where the kernel has no TLS, each upgrade tells them to come again, and they do."""

import asyncio
import collections
import os
import socket
import ssl
import struct
import threading

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RESTART = 1012
TCP_ULP = 31


def kernel_has_tls():
    """Whether the kernel continues TLS sessions, so that they can move to another process."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        try:
            near.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
        except OSError:
            return False
    return True


class EncryptedTunnels:
    """Holds tunnels open in a thread of its own. `told` counts close frames with the code of a restart, `cut` the ends
    without a word, `wrong` messages that did not come back as they were."""

    def __init__(self, port, host, count, seconds_between=2.0):
        self.counts = collections.Counter()
        self._args = port, host, count, seconds_between
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()

    def await_open(self, seconds):
        return self._ready.wait(seconds)

    def end(self):
        self._over = True
        self._thread.join(30)
        return self.counts

    async def _run(self):
        port, host, count, between = self._args
        self._over, self._open = False, 0
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        gate = asyncio.Semaphore(50)
        tasks = [asyncio.create_task(self._hold(port, host, context, gate, between, count)) for _ in range(count)]
        while not self._over:
            await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if outcome is not None and not isinstance(outcome, asyncio.CancelledError):
                self.counts[f"failed: {outcome!r}"] += 1

    async def _hold(self, port, host, context, gate, between, count):
        while True:
            async with gate:
                reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
                writer.write(f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 101 "):
                    raise ValueError(head.split(b"\r\n")[0])
            self._open += 1
            if self._open == count:
                self._ready.set()
            try:
                while await self._echo(reader, writer):
                    await asyncio.sleep(between)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.counts["cut"] += 1
            writer.close()

    async def _echo(self, reader, writer):
        message, mask = os.urandom(32), os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(message))
        writer.write(bytes([0x82, 0x80 | len(message)]) + mask + masked)
        opcode, length = await reader.readexactly(2)
        payload = await reader.readexactly(length)
        if opcode & 15 == 8:
            code = struct.unpack("!H", payload[:2])[0]
            self.counts["told" if code == RESTART else f"close frame {code}"] += 1
            return False
        self.counts["echoed" if payload == message else "wrong"] += 1
        return True
