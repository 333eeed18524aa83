"""Serve a package of ours to worker.py's commands: python benchmarks/gptoss_worker.py PACKAGE
ARITHMETIC THREADS [CAPACITY].

ARITHMETIC is the activations of the native kernels, or `stock`: ONNX Runtime's own, for a package
of target ort.
"""

import argparse

import numpy as np
from worker import serve

from gptoss_onnx.runtime import Session

CAPACITY = 8192 + 512 + 256


class Package:
    """One sequence in an open package."""

    def __init__(self, folder: str, arithmetic: str, threads: int, capacity: int) -> None:
        if arithmetic == "stock":
            self._session = Session.open(folder, threads=threads)
        else:
            self._session = Session.open(
                folder, kernels="native", activations=arithmetic, threads=threads
            )
        self._cache = self._session.new_cache(1, capacity)
        self._random = np.random.default_rng(0)

    def prefill(self, tokens: int) -> None:
        """See worker.Model."""
        self._cache.reset()
        self._run(tokens)

    def fill(self, tokens: int) -> None:
        """Claim so many tokens: what the cache holds, zeros or other tokens, makes no difference to
        the time.
        """
        missing = tokens - int(self._cache.lengths[0])
        part = self._cache.part()
        part.mark_writing(1)
        part.advance(np.array([missing]), np.zeros((1, missing), np.int64))

    def extend(self, tokens: int) -> None:
        """See worker.Model."""
        self._run(tokens)

    def step(self) -> None:
        """See worker.Model."""
        self._run(1)

    def _run(self, tokens: int) -> None:
        self._session.forward(
            self._random.integers(0, self._session.vocab, (1, tokens)), self._cache
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package")
    parser.add_argument("arithmetic", choices=("exact", "bf16", "int8", "stock"))
    parser.add_argument("threads", type=int)
    parser.add_argument("capacity", type=int, nargs="?", default=CAPACITY)
    arguments = parser.parse_args()
    serve(Package(arguments.package, arguments.arithmetic, arguments.threads, arguments.capacity))
