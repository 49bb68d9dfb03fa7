"""A forward proxy for tests: HTTP CONNECT with Basic credentials, and a record of who asked for what."""

from __future__ import annotations

import base64
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

USER, PASSWORD = os.environ.get("PROXY_USER", "klinik"), os.environ.get("PROXY_PASSWORD", "proxy-secret-word")


@dataclass
class ConnectProxy:
    """``targets`` are the hosts that were asked for with the right credentials; ``refused`` counts the other requests.

    ``elsewhere`` leads names that no name server knows to addresses of this machine.
    """

    port: int
    elsewhere: dict[str, tuple[str, int]] = field(default_factory=dict)
    targets: list[str] = field(default_factory=list)
    refused: int = 0

    @property
    def url(self) -> str:
        return f"http://{USER}:{PASSWORD}@127.0.0.1:{self.port}"


@contextmanager
def connect_proxy(host: str = "127.0.0.1", port: int = 0) -> Iterator[ConnectProxy]:
    listener = socket.create_server((host, port))
    proxy = ConnectProxy(port=listener.getsockname()[1])
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(proxy, client, ended), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(120)


def _serve(proxy: ConnectProxy, client: socket.socket, ended: threading.Event) -> None:
    with closing(client):
        client.settimeout(120)
        head = b""
        while b"\r\n\r\n" not in head:
            part = client.recv(4096)
            if not part:
                return
            head += part
        first, *lines = head.decode("latin-1").split("\r\n")
        wanted = "basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode().lower()
        given = [
            line.partition(":")[2].strip().lower() for line in lines if line.lower().startswith("proxy-authorization")
        ]
        method, target, _ = first.split(" ")
        if method != "CONNECT" or given != [wanted]:
            proxy.refused += 1
            client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
            return
        proxy.targets.append(target)
        host, _, port = target.rpartition(":")
        with closing(socket.create_connection(proxy.elsewhere.get(host, (host.strip("[]"), int(port))), 120)) as server:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _copy(client, server, ended)


def _copy(client: socket.socket, server: socket.socket, ended: threading.Event) -> None:
    while not ended.is_set():
        ready, _, _ = select.select([client, server], [], [], 0.2)
        for one in ready:
            try:
                data = one.recv(65536)
            except OSError:
                return
            if not data:
                return
            (server if one is client else client).sendall(data)


if __name__ == "__main__":  # a process of its own: tests that have several machines
    import sys

    with connect_proxy("0.0.0.0", int(sys.argv[1])) as _proxy:  # noqa: S104 - the test's own network
        _seen = 0
        while True:
            threading.Event().wait(0.2)
            for _target in _proxy.targets[_seen:]:
                print(_target, flush=True)
            _seen = len(_proxy.targets)
