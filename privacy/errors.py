"""The errors of this package.

::

    TesseraError
    ├── InvalidInput          something given is malformed or out of range
    │   └── NewerStore        newer code wrote this store
    ├── Refused               a rule of the protocol or of a policy says no
    │   ├── Withheld          the own people read why, everybody else only that it cannot run
    │   ├── BudgetExceeded    the privacy cap would be passed
    │   ├── OtherProtocol     the two sides' versions are too far apart to understand one another
    │   └── UnsafeSum         a decrypted sum failed the slot check; the round's key is gone
    ├── StudyOver             a study was ended and cannot start or go on any more
    └── Tampered              a signature, hash or chain does not hold

Every message says what was expected, what came and what to do, and never carries a secret, a record or a
patient identifier.
"""

from __future__ import annotations


class TesseraError(Exception):
    """Any error that Tessera raises on purpose."""


class InvalidInput(TesseraError, ValueError):
    """Something given is malformed or out of range; nothing was changed."""


class NewerStore(InvalidInput):
    """A newer version of the code wrote this store; nothing was changed."""


class Refused(TesseraError):
    """A rule of the protocol or of a policy forbids this; nothing was changed."""


class Withheld(Refused):
    """What is here is not what was approved: which part differs would tell others something about records."""

    outward = "the study cannot run here as it was approved; this site's people find the reason in their journal"
    """What everybody else is told, whatever differs."""


class BudgetExceeded(Refused):
    """The worst case of this request does not fit under the owner's privacy cap."""


class OtherProtocol(Refused):
    """Two parties whose protocols are too far apart to understand one another; one of them has to upgrade first."""


class UnsafeSum(Refused):
    """A decrypted slot is not an honest sum; nothing leaves and the round's key is destroyed."""


class StudyOver(TesseraError):
    """A study was denied, revoked, withdrawn, cancelled or has expired: it cannot start or go on any more."""


class Tampered(TesseraError):
    """A signature, hash or chain does not hold."""
