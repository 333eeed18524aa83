"""ONNX Runtime whose idle threads sleep: other processes of a test run want the cores."""

from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime
import pytest


class _Sleeping(onnxruntime.SessionOptions):
    """Options of a session whose threads do not spin between two operators.

    In a tiny model they would spin most of the time, while another process of tests waits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_session_config_entry("session.intra_op.allow_spinning", "0")


@contextmanager
def idle_threads_sleep() -> Iterator[None]:
    """Inside the block, threads of new sessions sleep while they have nothing to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "SessionOptions", _Sleeping)
        yield
