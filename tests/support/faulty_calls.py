"""Sessions that are wrong only under some condition: for tests of what the parity cases see.

A fault sits where a session calls its graph, so that it is that of a package which is wrong there,
whatever runs it.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from gptoss_onnx.runtime.binding import Binding
from gptoss_onnx.runtime.kv_cache import KVCache
from gptoss_onnx.runtime.target import CallInputs

WRONG = 0.05  # logits: far beyond any limit


@dataclass(frozen=True)
class GraphCall:
    """One call of the graph, the cache that it works on, and how many calls came before."""

    inputs: CallInputs
    cache: KVCache
    session: object
    number: int

    @property
    def rows(self) -> int:
        """B."""
        return self.inputs.input_ids.shape[0]

    @property
    def columns(self) -> int:
        """S."""
        return self.inputs.input_ids.shape[1]

    @property
    def kept(self) -> int:
        """Positions a row whose logits are wanted."""
        return self.inputs.logit_positions.shape[1]

    @property
    def slots(self) -> int:
        """C of the largest layer."""
        return max(map(self.cache.slots, self.cache.layers))

    @property
    def threads(self) -> int:
        """Threads of the session, 0 where ONNX Runtime chose."""
        return self.session.get_session_options().intra_op_num_threads  # type: ignore[attr-defined]


# Changes the logits (B, kept, V) that a call gave, in place.
Fault = Callable[[GraphCall, np.ndarray], None]


def wrong_where(condition: Callable[[GraphCall], bool]) -> Fault:
    """Return a fault: all logits of a call are wrong where a condition holds."""

    def fault(call: GraphCall, logits: np.ndarray) -> None:
        if condition(call):
            logits[..., 0] += WRONG

    return fault


@contextmanager
def every_call(fault: Fault) -> Iterator[None]:
    """Let a fault change what every call of a graph gives inside the block."""
    numbers = itertools.count()
    made, run = Binding.__init__, Binding.run

    def remember(self: Binding, onnxruntime, session, cache, *others) -> None:
        made(self, onnxruntime, session, cache, *others)
        self.of_cache = cache  # type: ignore[attr-defined]

    def wrong(self: Binding, call: CallInputs) -> np.ndarray:
        logits = run(self, call)
        fault(GraphCall(call, self.of_cache, self.session, next(numbers)), logits)  # type: ignore[attr-defined]
        return logits

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Binding, "__init__", remember)
        patch.setattr(Binding, "run", wrong)
        yield
