"""The positions whose logits are asked for: none, some of them in any order, all of them."""

import numpy as np

from gptoss_onnx.validation.cases.driving import Drive, Pair
from gptoss_onnx.validation.judging.scored import Scored

# how many positions a row asks for, by the number of rows
COUNTS = {1: (0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33), 2: (0, 1, 2, 3)}
PROMPT = 24  # tokens of a call


def kept_positions(drive: Drive) -> Pair:
    """Calls of one row and of two that ask for many numbers of positions, drawn from the seed: in
    any order, some of them twice, and other ones in each row.
    """
    generator = drive.expected.generator("kept positions")
    found, expected = [], []
    for batch, counts in COUNTS.items():
        size = min(PROMPT, len(drive.sequence))
        rows = [row[:size] for row in drive.rows(batch)]
        for count in sorted({*counts, size}):
            wanted = generator.integers(size, size=(batch, count))
            with drive.session.new_cache(batch, size) as cache:
                logits = drive.session.forward(rows, cache, logit_positions=wanted)
            assert logits.shape[1] == count
            found += list(logits)
            scores = (drive.expected.score(row) for row in drive.rows(batch))
            expected += [score[places] for score, places in zip(scores, wanted, strict=True)]
    return np.concatenate(found), Scored.join(expected)
