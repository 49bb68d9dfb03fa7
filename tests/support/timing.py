"""Whether something came about by itself and not only when a limit of the test ended it."""


def within(seconds: float, limit: float) -> bool:
    """Return whether ``seconds`` is below twenty times ``limit``, which a machine with ten others on it keeps.

    Benchmarks say how quick something is.
    """
    return seconds < 20 * limit
