"""A relay before a server: its address stays while the server behind it changes, or becomes slow."""

import socket
import threading
import time

from . import procs

# Seconds between two bytes of a reply that drips.
DRIP_SECONDS = 0.3


class Relay:
    """Passes connections at a port of its own on to `target`, a port of 127.0.0.1."""

    def __init__(self, target):
        self.port, self.target, self.drips = procs.free_port(), target, False
        self.lock, self.pairs = threading.Lock(), []
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def switch(self, target):
        """Connections lead to another server from now on, and those that exist are closed."""
        self.target = target
        self.cut()

    def cut(self):
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for end in [end for pair in pairs for end in pair]:
            _close(end)

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.pairs.append((client, server))
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source, sink, is_reply):
        try:
            while data := source.recv(65536):
                while is_reply and self.drips and data:
                    sink.sendall(data[:1])
                    data = data[1:]
                    time.sleep(DRIP_SECONDS)
                sink.sendall(data)
        except OSError:
            pass
        _close(source)
        _close(sink)


def _close(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()
