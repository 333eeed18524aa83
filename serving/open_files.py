"""allow_connections: let a process open as many files as its connections need."""

import sys

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.connection import REFUSED

_OTHERS = 200  # weights, libraries, pipes of the processes that compile schemas
_DEFAULT = 1000


def allow_connections(asked: int | None = None) -> int:
    """Let this process open as many files as so many connections need, and return their number.

    Beyond that limit the system takes no more of them, and a server can tell nobody. What nobody
    asked for is 1000, or what the system allows where that is less, as in many containers. Raises
    InputError where it allows less than what was asked for.
    """
    connections = _DEFAULT if asked is None else asked
    if sys.platform == "win32":  # no such limit
        return connections
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        most = max(1, hard - REFUSED - _OTHERS)
        if asked is None:
            connections = min(connections, most)
        elif connections > most:
            raise InputError(
                f"--max-connections: found {connections}, which takes "
                f"{connections + REFUSED + _OTHERS} open files, but this process may have {hard}; "
                f"expected {most} at most, or a higher limit (ulimit -Hn, LimitNOFILE of systemd)"
            )
    needed = connections + REFUSED + _OTHERS
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    return connections
