"""Runs a datasite as ``tessera datasite run`` does, and writes down everything it sends and everything syft encrypts.

python recording_site.py HOME RECORD
"""

import base64
import json
import sys
import threading
from pathlib import Path

import httpx
from syft.sync.peers.peer_store import PeerStore

from datasites.hospital.daemon import run
from datasites.node.process import end_with_parent

HOME, RECORD = Path(sys.argv[1]), Path(sys.argv[2])
_lock = threading.Lock()


def write(**line: object) -> None:
    with _lock, RECORD.open("a") as file:
        file.write(json.dumps(line) + "\n")


class Recording(httpx.HTTPTransport):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        write(
            method=request.method,
            target=request.url.raw_path.decode(),
            headers=dict(request.headers),
            body=base64.b64encode(request.read()).decode(),
        )
        return super().handle_request(request)


def client(*arguments: object, **options: object) -> httpx.Client:
    return original(*arguments, **{**options, "transport": Recording()})


original, httpx.Client = httpx.Client, client
to_peer, to_self = PeerStore.encrypt, PeerStore.encrypt_for_self


def encrypt(store: PeerStore, recipient: str, plaintext: bytes) -> bytes:
    write(syft=base64.b64encode(plaintext).decode())
    return to_peer(store, recipient, plaintext)


def encrypt_for_self(store: PeerStore, plaintext: bytes) -> bytes:
    write(syft=base64.b64encode(plaintext).decode())
    return to_self(store, plaintext)


PeerStore.encrypt, PeerStore.encrypt_for_self = encrypt, encrypt_for_self
end_with_parent()
run(HOME)
