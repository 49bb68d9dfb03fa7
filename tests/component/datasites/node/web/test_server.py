"""A server that is asked to end does not wait for people who only wait for news."""

import logging
import socket
import threading
import time

import httpx
from support.timing import within

from datasites.node.home import Config
from datasites.node.web.server import WebServer
from datasites.portal.app import create_portal

PASSWORD = "correct horse battery staple"
CONFIG = Config(name="alba", institution="Hospital Alba", role="datasite", orchestrator_url="http://127.0.0.1:9")


def test_an_open_event_stream_ends_at_once_when_the_server_does(desk, new_context, caplog):
    app = create_portal(new_context(desk))
    server = WebServer(app, CONFIG, app.state.service.streams.close)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client, caplog.at_level(logging.ERROR):
        while not server.started:
            time.sleep(0.01)
        client.post("/login", data={"name": "anna", "password": PASSWORD})
        with client.stream("GET", "/studies/events") as stream:
            lines = stream.iter_lines()
            assert next(lines).startswith("retry:")
            asked = time.monotonic()
            server.should_exit = True
            rest = list(lines)
            thread.join(60)
    assert not thread.is_alive()
    assert within(time.monotonic() - asked, 2)
    assert not any(line.startswith("event:") for line in rest)
    assert not caplog.records
