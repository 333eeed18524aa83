"""What a server says of itself once it is ready: all that its users need to know."""

import json
import shlex
from typing import TYPE_CHECKING

from gptoss_onnx.amounts import file_size
from gptoss_onnx.cli.serve_options import KEY_VARIABLE
from gptoss_onnx.cli.serve_run import ServeRun

if TYPE_CHECKING:
    from gptoss_onnx.memory import MemoryRoom
    from gptoss_onnx.runtime import Session
    from gptoss_onnx.serving.settings import ServerSettings
    from gptoss_onnx.serving.sizes import Sizes


def greeting(
    url: str,
    run: ServeRun,
    session: "Session",
    sizes: "Sizes",
    room: "MemoryRoom | None",
    replicas: int = 1,
) -> str:
    """Return what the server says of itself once it is ready."""
    left = "on the GPU, not compared with what it has" if room is None else room.words
    where = f" in each of {replicas} replicas" if replicas > 1 else ""
    rows = {
        "page": url,
        "API": f"{url}/v1, model {run.settings.model}",
        "answers": f"{sizes.slots} at once{where}, each with its prompt up to {sizes.capacity} "
        f"tokens; {run.max_queue} more may wait",
        "memory": f"up to {file_size(sizes.total)} ({sizes.parts}); {left}",
        "kernels": f"{session.kernels}, {session.activations}, {session.provider}",
        "access": _access(run.host, run.settings),
        "try": _curl(url, run.settings),
    }
    lines = [f"{name:<9}{value}" for name, value in rows.items()]
    return "\n".join([*lines, "ready: Ctrl-C stops it once all answers have ended"])


def _access(host: str, settings: "ServerSettings") -> str:
    from gptoss_onnx.serving.run import is_loopback

    if settings.api_keys:
        count = len(settings.api_keys)
        return "with the API key" if count == 1 else f"with one of {count} API keys"
    if is_loopback(host):
        return "without a key, from this machine alone"
    return f"without a key, from all machines that reach {host}; --api-key keeps others out"


def _curl(url: str, settings: "ServerSettings") -> str:
    message = {"role": "user", "content": "Why are there tides?"}
    body = json.dumps({"messages": [message], "stream": True})
    # The key itself stays out of terminals and of their history; of several it is the first.
    first = f"${{{KEY_VARIABLE}%% *}}"
    key = f' -H "Authorization: Bearer {first}"' if settings.api_keys else ""
    return (
        f"curl -N {shlex.quote(url + '/v1/chat/completions')} "
        f"-H 'Content-Type: application/json'{key} -d {shlex.quote(body)}"
    )
