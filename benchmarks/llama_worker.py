"""Serve a GGUF file with llama.cpp to worker.py's commands: python benchmarks/llama_worker.py MODEL
THREADS [CAPACITY].

Runs in the environment that peers.sh makes. Everything is as llama.cpp has it by default: weights
repacked for its kernels, a 16-bit KV cache, flash attention where it finds it useful, batches of
512.
"""

import argparse
import ctypes

import llama_cpp
from worker import BATCH, Peer, serve

CAPACITY = 8192 + 512 + 256


class Llama(Peer):
    """One sequence in a loaded model."""

    def __init__(self, path: str, threads: int, capacity: int) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if model is None:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        super().__init__(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model)))
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = capacity, BATCH, BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.swa_full = False
        self._context = llama_cpp.llama_init_from_model(model, parameters)

    def forget(self) -> None:
        """See Peer."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)

    def run(self, ids: list[int]) -> None:
        """See Peer."""
        tokens = (ctypes.c_int32 * len(ids))(*ids)  # the batch only points to them
        if (
            llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(tokens, len(ids)))
            != 0
        ):
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self._context)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("threads", type=int)
    parser.add_argument("capacity", type=int, nargs="?", default=CAPACITY)
    arguments = parser.parse_args()
    serve(Llama(arguments.model, arguments.threads, arguments.capacity))
