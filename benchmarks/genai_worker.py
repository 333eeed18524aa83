"""Serve a package of target ort with onnxruntime-genai to worker.py's commands.

    python benchmarks/genai_worker.py PACKAGE THREADS

Runs in the environment that peers.sh makes. Arithmetic is onnxruntime-genai's own choice, 8-bit activations in QMoE.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from worker import serve

CAPACITY = 8192 + 512 + 256
BATCH = 512


class Genai:
    """One sequence in a loaded model."""

    def __init__(self, folder: str, threads: int) -> None:
        config = og.Config(folder)
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
        config.overlay(json.dumps(options))
        self._model = og.Model(config)
        self._vocabulary = json.loads((Path(folder) / "manifest.json").read_text())["model"]["vocab_size"]
        self._random = random.Random(0)
        self._start()

    def prefill(self, tokens: int) -> None:
        """See worker.Model."""
        self._start()
        self._run(tokens)

    def fill(self, tokens: int) -> None:
        """See worker.Model."""
        while self._length < tokens:
            self._run(min(BATCH, tokens - self._length))

    def step(self) -> None:
        """See worker.Model."""
        self._run(1)

    def _start(self) -> None:
        parameters = og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=CAPACITY, do_sample=False)
        self._generator, self._length = og.Generator(self._model, parameters), 0

    def _run(self, tokens: int) -> None:
        ids = [self._random.randrange(self._vocabulary) for _ in range(tokens)]
        self._generator.append_tokens(np.array([ids], np.int32))
        self._generator.get_logits()
        self._length += tokens


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package")
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    serve(Genai(arguments.package, arguments.threads))
