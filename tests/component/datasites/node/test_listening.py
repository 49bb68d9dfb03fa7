"""A role's listening socket."""

from __future__ import annotations

import socket

import pytest

from datasites.node.process import bind
from privacy.errors import InvalidInput


def test_asyncio_sends_small_answers_at_once_on_what_is_accepted() -> None:
    with bind("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()) as _:
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # what asyncio looks at before it sets TCP_NODELAY


def test_a_port_in_use_is_one_clear_line() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(InvalidInput, match="in use"):
        bind("127.0.0.1", listener.getsockname()[1])
