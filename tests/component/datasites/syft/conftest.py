"""A mailbox server for tests of PySyft's transport."""

from support.mailbox_server import mailbox, mailbox_identity, sandbox, workers

__all__ = ["mailbox", "mailbox_identity", "sandbox", "workers"]
