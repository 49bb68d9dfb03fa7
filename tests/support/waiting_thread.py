"""Starts a thread that waits for ever, for a test of processes that must have none."""

import threading


def start() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
