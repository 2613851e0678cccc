"""A gigabyte in either direction, with a checksum at each end.

Backend and client are threads of this process; hashing and socket calls leave the others running.
"""

import hashlib
import os
import queue
import socket
import threading
import time
from dataclasses import dataclass

BLOCK_BYTES = 1024 * 1024
CHUNK_BYTES = 64 * 1024
STALL_SECONDS = 120


@dataclass(frozen=True)
class Transfer:
    """One body through the proxy."""
    upload: bool
    chunked: bool
    total_bytes: int
    # How long the receiver stops reading after a quarter, so that the proxy has to hold the sender back.
    pause_seconds: float

    def title(self):
        pause = f", the reader pauses for {self.pause_seconds:g} s" if self.pause_seconds else ""
        return (f"{'upload' if self.upload else 'download'} of {self.total_bytes / 2**20:,.0f} MiB, "
                f"{'chunked' if self.chunked else 'with Content-Length'}{pause}")


class Body:
    """What is sent: random blocks, each with its number, so that no two are alike."""

    def __init__(self, total_bytes):
        self._blocks = total_bytes // BLOCK_BYTES
        self._random = os.urandom(BLOCK_BYTES - 8)

    def __iter__(self):
        for number in range(self._blocks):
            yield number.to_bytes(8, "big") + self._random


def send_body(client, transfer):
    """Sends a body and returns its checksum."""
    digest = hashlib.sha256()
    for block in Body(transfer.total_bytes):
        digest.update(block)
        if transfer.chunked:
            pieces = (block[at:at + CHUNK_BYTES] for at in range(0, len(block), CHUNK_BYTES))
            block = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        client.sendall(block)
    if transfer.chunked:
        client.sendall(b"0\r\n\r\n")
    return digest.hexdigest()


def receive_body(source, length, transfer):
    """Reads a body of `length` bytes, or of chunks where that is None; returns number of bytes and checksum."""
    digest, total, paused = hashlib.sha256(), 0, False
    for piece in _pieces(source, length):
        digest.update(piece)
        total += len(piece)
        if not paused and transfer.pause_seconds and total > transfer.total_bytes // 4:
            time.sleep(transfer.pause_seconds)
            paused = True
    return total, digest.hexdigest()


def _pieces(source, length):
    if length is not None:
        while length:
            piece = source.read1(min(length, BLOCK_BYTES))
            if not piece:
                return
            length -= len(piece)
            yield piece
        return
    while size := int(source.readline().split(b";")[0], 16):
        while size:
            piece = source.read1(min(size, BLOCK_BYTES))
            if not piece:
                return
            size -= len(piece)
            yield piece
        source.readline()
    while source.readline().strip():
        pass


def read_head(source):
    """First line and headers, the names in lower case."""
    first = source.readline().decode().strip()
    headers = {}
    while line := source.readline().strip():
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    return first, headers


def body_length(headers):
    return None if "transfer-encoding" in headers else int(headers.get("content-length", 0))


class Backend:
    """Takes uploads and answers with their checksum; sends downloads and remembers theirs."""

    def __init__(self, port):
        self._listener = socket.create_server(("127.0.0.1", port))
        self.transfer = None
        # The client may have the last byte before the checksum of what was sent is ready.
        self.sent_digests = queue.Queue()
        threading.Thread(target=self._accept, daemon=True).start()

    def last_digest(self):
        try:
            return self.sent_digests.get(timeout=STALL_SECONDS)
        except queue.Empty:
            return "of a body that was not sent to its end"

    def _accept(self):
        while True:
            client, _ = self._listener.accept()
            client.settimeout(STALL_SECONDS)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        try:
            with client, client.makefile("rb", buffering=BLOCK_BYTES) as source:
                while self._serve_one(client, source):
                    pass
        except (OSError, ValueError):
            # The client's side tells what is missing.
            pass

    def _serve_one(self, client, source):
        first, headers = read_head(source)
        if not first:
            return False
        if first.startswith("GET /small"):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif first.startswith("GET"):
            framing = (b"Transfer-Encoding: chunked" if self.transfer.chunked
                       else b"Content-Length: %d" % self.transfer.total_bytes)
            client.sendall(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
            self.sent_digests.put(send_body(client, self.transfer))
        else:
            total, digest = receive_body(source, body_length(headers), self.transfer)
            answer = f"{total} {digest}".encode()
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
        return True


def run(port, host, backend, transfer):
    """Makes the transfer and returns the seconds it took, or raises OSError with what went wrong."""
    backend.transfer, backend.sent_digests = transfer, queue.Queue()
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=STALL_SECONDS) as client:
        source = client.makefile("rb", buffering=BLOCK_BYTES)
        if transfer.upload:
            framing = "Transfer-Encoding: chunked" if transfer.chunked else f"Content-Length: {transfer.total_bytes}"
            client.sendall(f"PUT /upload HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n".encode())
            here = f"{transfer.total_bytes} {send_body(client, transfer)}"
            first, headers = read_head(source)
            there = source.read(body_length(headers) or 0).decode()
        else:
            client.sendall(f"GET /download HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            first, headers = read_head(source)
            total, digest = receive_body(source, body_length(headers), transfer)
            here, there = f"{total} {digest}", f"{transfer.total_bytes} {backend.last_digest()}"
    if " 200 " not in f"{first} ":
        raise OSError(f"the answer is {first!r}")
    if here != there:
        raise OSError(f"bytes and checksum differ: client {here}, backend {there}")
    return time.monotonic() - started


def get_small(port, host):
    """One small request, after which a proxy has all that it needs for any."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET /small HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        first, _ = read_head(client.makefile("rb"))
    if " 200 " not in f"{first} ":
        raise OSError(f"the answer is {first!r}")
