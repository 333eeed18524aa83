"""A program that, for every output folder named on stdin, forks an export of a checkpoint.

Its trace and its golden vectors are those that this test run has made: what tests interrupt by
killing the forks is the writing, without seconds of tracing before it. Prints `ready SECONDS` (how
long one export takes) and then, for each folder, the fork's process id and, when the fork has
ended, `ended`.
"""

import os
import sys
import time
from pathlib import Path

import torch

from gptoss_onnx.exporter import export
from support.made_once import made_once


def main(checkpoint: str, kept: str, scratch: str) -> None:
    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    with made_once(Path(kept)):
        export(checkpoint, f"{scratch}/warm")
        begin = time.perf_counter()
        export(checkpoint, f"{scratch}/timed")
        print("ready", time.perf_counter() - begin, flush=True)
        for line in sys.stdin:
            fork = os.fork()
            if fork == 0:
                export(checkpoint, line.strip(), force=True)
                os._exit(0)
            print(fork, flush=True)
            os.waitpid(fork, 0)
            print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
