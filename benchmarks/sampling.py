"""Time the choice of the next tokens of a batch: the native kernel beside numpy.

    python benchmarks/sampling.py --rows 8

Logits are random and normal, of gpt-oss's vocabulary: `flat` ones with a standard deviation of 1,
where top-p 0.95 keeps three tokens of four, and `peaked` ones with 3, where it keeps one of eleven.
Native and numpy take turns within a round; times are medians of the rounds, in milliseconds a step
of all rows. All of it runs on one thread, whose own time is measured: on an idle machine that is
what passes. The speedup is the median of the rounds' ratios.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from gptoss_onnx.runtime import Sampling
from gptoss_onnx.runtime.batch_sampling import BatchSampler, token_logprobs
from gptoss_onnx.runtime.sampling import RowSampler

VOCAB = 201_088
DEVIATIONS = {"flat": 1.0, "peaked": 3.0}
SETTINGS = {
    "greedy": Sampling(),
    "temperature 1": Sampling(temperature=1, seed=1),
    "temperature 1, top-p 0.95": Sampling(temperature=1, top_p=0.95, seed=1),
    "temperature 1, top-k 40": Sampling(temperature=1, top_k=40, seed=1),
    "temperature 0.7, top-p 0.9, min-p 0.01": Sampling(
        temperature=0.7, top_p=0.9, min_p=0.01, seed=1
    ),
    "temperature 1, top-p 0.95, presence 1": Sampling(
        temperature=1, top_p=0.95, presence_penalty=1, seed=1
    ),
}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=8, help="rows of the batch")
    parser.add_argument("--rounds", type=int, default=20, help="rounds each setting is timed")
    arguments = parser.parse_args()
    samplers = [BatchSampler("native"), BatchSampler("portable")]
    print(f"{arguments.rows} rows, ms a step{'':37}native    numpy  speedup")
    for name, deviation in DEVIATIONS.items():
        shape = (arguments.rows, VOCAB)
        normal = np.random.default_rng(0).standard_normal(shape)
        logits = (deviation * normal).astype(np.float32)
        for setting, sampling in SETTINGS.items():
            rows = [RowSampler(sampling, row) for row in range(arguments.rows)]
            steps = [partial(sampler.choose, logits, rows) for sampler in samplers]
            times = [[seconds(step) for step in steps] for _ in range(arguments.rounds)]
            native, numpy = (1e3 * statistics.median(each) for each in zip(*times, strict=True))
            speedup = statistics.median(slow / quick for quick, slow in times)
            print(f"{name:7} {setting:45} {native:8.2f} {numpy:8.2f} {speedup:7.1f}x")
        found = partial(token_logprobs, logits[0], 5, 20)
        times = [[seconds(found)] for _ in range(arguments.rounds)]
        median = 1e3 * statistics.median(each for (each,) in times)
        print(f"{name:7} {'log-probabilities of one row, top 20':45} {'':8} {median:8.2f}")


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call keeps this thread busy."""
    begin = time.thread_time()
    run()
    return time.thread_time() - begin


if __name__ == "__main__":
    main()
