"""A program that traces a checkpoint once and then, for every output folder named on stdin, forks an export of it.

Prints `ready SECONDS` (how long one export takes) and then, for each folder, the fork's process id and, when the fork
has ended, `ended`. Tests kill the forks: what is interrupted is the writing, without seconds of tracing before it.
"""

import os
import sys
import time

import onnx_ir as ir
import torch

from gptoss_onnx.exporter import golden, package


def main(checkpoint: str, scratch: str) -> None:
    golden.GREEDY_TOKENS = 2  # golden vectors would take most of the time, and most of the kills
    torch.set_num_threads(1)  # no pool of threads that a fork would lose
    traced: list[ir.Model] = []
    trace = package.trace

    def trace_once(model: object, dtype: object) -> ir.Model:
        if not traced:
            traced.append(trace(model, dtype))
        return traced[0].clone()

    package.trace = trace_once
    package.export(checkpoint, f"{scratch}/warm")
    begin = time.perf_counter()
    package.export(checkpoint, f"{scratch}/timed")
    print("ready", time.perf_counter() - begin, flush=True)
    for line in sys.stdin:
        fork = os.fork()
        if fork == 0:
            package.export(checkpoint, line.strip(), force=True)
            os._exit(0)
        print(fork, flush=True)
        os.waitpid(fork, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
