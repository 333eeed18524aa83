"""The token ids that sampling misses: all of a small vocabulary, and the ends of a large one.

Legend: V vocabulary.
"""

from collections.abc import Callable, Iterator

from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.cases.driving import Drive, Pair, joined
from gptoss_onnx.validation.judging.scored import Scored

PIECE = 128  # tokens of a sequence
MARKED = ("bos_token_id", "eos_token_id", "pad_token_id")


def token_ids(most: int) -> Callable[[Drive], Pair]:
    """Return a drive that runs every token id where V is `most` or less, and else those of
    `chosen_ids`, in an order drawn from the seed.
    """

    def run(drive: Drive) -> Pair:
        pairs = []
        for tokens, expected in _sequences(drive, chosen_ids(drive, most)):
            pairs.append((drive.session.score(tokens, chunk=len(tokens)), expected))
        return joined(pairs)

    return run


def chosen_ids(drive: Drive, most: int) -> list[int]:
    """Return every id of a small vocabulary; of a large one the first and last ids, those beside
    powers of two, those that config.json marks, and some drawn from the seed: what all others
    stand for in the weights is compared elsewhere, byte by byte.
    """
    vocabulary = drive.session.vocab
    if vocabulary <= most:
        return list(range(vocabulary))
    ids: list[object] = [0, 1, vocabulary - 2, vocabulary - 1]
    ids += [2**power + step for power in range(1, 31) for step in (-1, 0)]
    model = drive.session.manifest.model if isinstance(drive.session, Session) else {}
    for key in MARKED:
        marked = model.get(key)
        ids += marked if isinstance(marked, list) else [marked]
    real = {token for token in ids if isinstance(token, int) and 0 <= token < vocabulary}
    drawn = drive.expected.generator("some token ids").permutation(vocabulary)
    return sorted(real.union(map(int, drawn[: max(0, PIECE - len(real))])))


def _sequences(drive: Drive, ids: list[int]) -> Iterator[tuple[list[int], Scored]]:
    """Yield sequences that together have each id once, with the reference's logits.

    A sequence ends before a token at which a router chooses by a hair, so that nothing comes after
    it; that id is tried again in another place, later. One that is always so stays.
    """
    most, tries = min(PIECE, drive.sizes.longest), drive.expected.tries
    left = [int(token) for token in drive.expected.generator("token ids").permutation(ids)]
    while left:
        piece, left = left[:most], left[most:]
        scored = drive.expected.score(piece)
        decided = int(scored.decided.sum())
        if 0 < decided < len(piece) and tries > 0:
            tries -= 1
            left = [*piece[decided + 1 :], *left, piece[decided]]
            piece = piece[:decided]
        yield piece, scored[: len(piece)]
