"""How many threads of torch run the reference."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gptoss_onnx.reference.decoder import Decoder

SMALL = 50_000_000  # parameters of a model that one thread runs as fast as several


@contextmanager
def threads_for(model: Decoder) -> Iterator[None]:
    """Run a small model with one thread inside the block, and any other with all.

    Threads of a small model wait more than they compute. While they wait they spin, and where
    ONNX Runtime's spin as well, a run takes three times as long. One thread also gives the same
    sums on every machine.
    """
    threads = torch.get_num_threads()
    if is_small(model):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def is_small(model: Decoder) -> bool:
    """Say whether a model can be run again and again."""
    return sum(map(torch.numel, model.parameters())) <= SMALL
