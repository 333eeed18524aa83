"""ReplicaOptions: how each replica runs, in one value that travels to other processes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.choices import Activations, Kernels
from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.settings import ServerSettings
from gptoss_onnx.typed_json import parse_object

MOST_REPLICAS = 1000


@dataclass(frozen=True)
class ReplicaOptions:
    """Options of the replicas of one package.

    Attributes:
        package: the folder; on a cluster a path that every machine has.
        settings: of the server, the same in all.
        replicas: how many there are.
        slots: answers that one runs at once.
        capacity: tokens of one conversation.
        chunk: of a prompt, read between two tokens of the answers that run.
        max_queue: answers that may wait in one replica.
        prefix_bytes: for beginnings of conversations, in one replica.
        kernels: as for `Session.open`.
        activations: as for `Session.open`.
        threads: of one replica; None is one a core, which suits one replica a machine.
    """

    package: str
    settings: ServerSettings
    replicas: int = 2
    slots: int = 8
    capacity: int = 8192
    chunk: int = 128
    max_queue: int = 64
    prefix_bytes: int = 1 << 30
    kernels: Kernels = "auto"
    activations: Activations = "exact"
    threads: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.replicas <= MOST_REPLICAS:
            raise InputError(f"replicas: found {self.replicas}, expected 1 to {MOST_REPLICAS}")


def options_of(arguments: Mapping[str, Any]) -> ReplicaOptions:
    """Return the options that the `args` of a `serve.yaml` say: the attributes of `ReplicaOptions`
    by their names, those of `settings` in an object of its own.

    Raises InputError for an unknown or missing key, and for a value of another type.
    """
    package, settings = arguments.get("package"), arguments.get("settings", {})
    if isinstance(package, str) and isinstance(settings, dict):
        settings = {"model": Path(package).name, **settings}
    try:
        return parse_object(ReplicaOptions, {**arguments, "settings": settings}, "")
    except TypeError as error:
        raise InputError(f"args of the replicas: {error}") from error
