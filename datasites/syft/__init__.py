"""PySyft over our own mailbox: the only subpackage that knows syft.

Start with ``client.py``, the door: :class:`datasites.syft.client.OwnerNode` and
:class:`~datasites.syft.client.ScientistNode`.
"""

import warnings

from pydantic.warnings import PydanticDeprecatedSince20

with warnings.catch_warnings():
    # syft 0.10 declares some models with pydantic's older class-based configuration, which works and is deprecated
    warnings.simplefilter("ignore", PydanticDeprecatedSince20)
    import syft_rds  # noqa: F401
