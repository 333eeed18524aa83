"""Serve a GGUF file with llama.cpp to worker.py's commands: python benchmarks/llama_worker.py MODEL THREADS.

Runs in the environment that peers.sh makes. Everything is as llama.cpp has it by default: weights repacked for its
kernels, a 16-bit KV cache, flash attention where it finds it useful, batches of 512.
"""

import argparse
import ctypes
import random

import llama_cpp
from worker import serve

CONTEXT = 8192 + 512 + 256
BATCH = 512


class Llama:
    """One sequence in a loaded model."""

    def __init__(self, path: str, threads: int) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if model is None:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = CONTEXT, BATCH, BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.swa_full = False
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        self._random = random.Random(0)
        self._length = 0

    def prefill(self, tokens: int) -> None:
        """See worker.Model."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        self._length = 0
        self._run(tokens)

    def fill(self, tokens: int) -> None:
        """See worker.Model."""
        while self._length < tokens:
            self._run(min(BATCH, tokens - self._length))

    def step(self) -> None:
        """See worker.Model."""
        self._run(1)

    def _run(self, tokens: int) -> None:
        ids = (ctypes.c_int32 * tokens)(*(self._random.randrange(self._vocabulary) for _ in range(tokens)))
        if llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(ids, tokens)) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self._context)
        self._length += tokens


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    serve(Llama(arguments.model, arguments.threads))
