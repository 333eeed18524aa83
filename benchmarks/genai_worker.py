"""Serve a package of target ort, or of its own builder, with onnxruntime-genai to worker.py's
commands.

    python benchmarks/genai_worker.py PACKAGE THREADS

Runs in the environment that peers.sh makes. All settings but the threads are those of the package.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from worker import Peer, serve

CAPACITY = 8192 + 512 + 256


class Genai(Peer):
    """One sequence in a loaded model."""

    def __init__(self, folder: str, threads: int) -> None:
        settings = json.loads((Path(folder) / "genai_config.json").read_text())
        super().__init__(settings["model"]["vocab_size"])
        config = og.Config(folder)
        options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
        config.overlay(json.dumps(options))
        self._model = og.Model(config)
        self.forget()

    def forget(self) -> None:
        """See Peer."""
        parameters = og.GeneratorParams(self._model)
        parameters.set_search_options(max_length=CAPACITY, do_sample=False)
        self._generator = og.Generator(self._model, parameters)

    def run(self, ids: list[int]) -> None:
        """See Peer."""
        self._generator.append_tokens(np.array([ids], np.int32))
        self._generator.get_logits()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package")
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    serve(Genai(arguments.package, arguments.threads))
