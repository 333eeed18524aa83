"""allow_connections: let a process open as many files as its connections need."""

import sys

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.connection import REFUSED

_OTHERS = 200  # weights, libraries, pipes of the processes that compile schemas


def allow_connections(connections: int) -> None:
    """Raise this process's limit of open files to what so many connections need.

    Beyond it the system takes no more of them, and a server can tell nobody. Raises InputError
    where the system lets no process go so far.
    """
    if sys.platform == "win32":  # no such limit
        return
    import resource

    needed = connections + REFUSED + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise InputError(
            f"--max-connections: found {connections}, which takes {needed} open files, but this "
            f"process may have {hard}; expected {max(1, hard - needed + connections)} at most, or "
            "a higher limit (ulimit -Hn, LimitNOFILE of systemd)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
