"""A TCP proxy in front of Redis that cuts the connection at a chosen command."""

import contextlib
import socket
import threading
from collections.abc import Collection


class Proxy:
    """Forwards to ``port``; counts commands over all its connections, and cuts at one of them.

    ``cut_at``: which command, from 1; 0: none. ``when``: "before": it's never forwarded;
    "after": it's carried out, and its reply never arrives. ``hold``: leave the connection open
    and silent instead of closing it. ``only``: count no other commands than these.
    """

    def __init__(
        self,
        port: int,
        cut_at: int = 0,
        when: str = "after",
        *,
        hold: bool = False,
        only: Collection[bytes] = (),
    ) -> None:
        self._upstream, self._cut_at, self._when = port, cut_at, when
        self._hold, self._only = hold, only
        self._lock = threading.Lock()
        self.commands: list[bytes] = []
        self.cut = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close everything."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            _close(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._upstream))
            self._sockets += [client, server]
            doomed = threading.Event()
            for pump in (self._requests, self._replies):
                threading.Thread(target=pump, args=(client, server, doomed), daemon=True).start()

    def _is_cut(self, name: bytes) -> bool:
        with self._lock:
            if self._only and name not in self._only:
                return False
            self.commands.append(name)
            return len(self.commands) == self._cut_at

    def _requests(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        try:
            stream = client.makefile("rb")
            while command := _read_command(stream):
                name, raw = command
                if self._is_cut(name):
                    doomed.set()
                    if self._when == "before":
                        break
                server.sendall(raw)
        except OSError:
            pass
        if doomed.is_set() and self._when == "before":
            self._end(client, server)
        elif not doomed.is_set():
            _close(server)

    def _replies(
        self, client: socket.socket, server: socket.socket, doomed: threading.Event
    ) -> None:
        try:
            while data := server.recv(65536):
                if doomed.is_set():
                    break
                client.sendall(data)
        except OSError:
            pass
        self._end(client, server)

    def _end(self, client: socket.socket, server: socket.socket) -> None:
        if not self._hold:
            _close(client)
        _close(server)
        self.cut.set()


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the other thread's recv
    end.close()


def _read_command(stream) -> tuple[bytes, bytes] | None:
    """Return a command's name and its bytes: an array of bulk strings."""
    raw = stream.readline()
    if not raw:
        return None
    name = b""
    for _ in range(int(raw[1:])):
        size = stream.readline()
        word = stream.read(int(size[1:]) + 2)
        name = name or word[:-2].upper()
        raw += size + word
    return name, raw
