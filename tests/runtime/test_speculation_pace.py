"""How many tokens are guessed: played through with calls of given costs, on given texts.

Costs are in calls of one token, and have noise, as measured ones do.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.runtime import Sampling, Tokenizer
from gptoss_onnx.runtime.sampling import RowSampler
from gptoss_onnx.runtime.speculation.call_costs import CallCosts
from gptoss_onnx.runtime.speculation.hit_rates import HitRates
from gptoss_onnx.runtime.speculation.lookup import LEAST_MATCH, LONGEST_MATCH, Lookup, repeated
from gptoss_onnx.runtime.speculation.pace import Pace

ROOT = Path(__file__).parents[2]
MOST = 8
NEW = 200  # tokens of an answer
NOISE = 0.05  # of a call's seconds
NEVER_LESS = 0.95  # times the tokens a second of plain decoding
Cost = Callable[[int], float]

# gpt-oss-20b on two cores: 8 tokens a call are 2.4 times as many a second as one; and machines on
# which more tokens cost less, or more.
COSTS: dict[str, Cost] = {
    "20b": lambda size: float(np.interp(size, [1, 8, 16], [1, 8 / 2.4, 16 / 2.4])),
    "cheap": lambda size: 1 + 0.15 * (size - 1),
    "dear": lambda size: 1 + 0.8 * (size - 1),
    "a step at 5": lambda size: 1 + 0.1 * (size - 1) + 3.0 * (size >= 5),
}


class Play:
    """Decoding without a model: calls take what they cost, and guesses hit where the text says so.

    Attributes:
        seconds: of all calls and guesses.
    """

    def __init__(self, cost: Cost) -> None:
        self._cost, self._random, self._pace = cost, np.random.default_rng(1), Pace()
        self.seconds = 0.0

    def _call(self, guessed: int, said: int, guessing: float) -> None:
        noise = 1 + NOISE * abs(self._random.standard_normal())
        self._pace.record(guessed, said, guessing, self._cost(guessed + 1) * noise)
        self.seconds += self._cost(guessed + 1) + guessing

    def looked_up(self, prompt: list[int], answer: list[int]) -> float:
        """Return how many times as fast the answer is with guesses that are looked up."""
        lookup, text, said = Lookup(), np.array(prompt + answer), len(prompt) + 1
        while said < text.size:
            chances = lookup.look(text[:said], min(MOST, text.size - said - 1))
            count = self._pace.length(chances, lookup.each, lookup.explores)
            found = lookup.guess(count, RowSampler(Sampling(), 0)).tokens
            right = int(np.cumprod(found == text[said : said + count]).sum()) if count else 0
            tokens = text[said : said + right + 1].tolist()
            lookup.learn(tokens)
            self._call(count, len(tokens), 0.0)
            said += len(tokens)
        return (len(answer) - 1) / self.seconds

    def drafted(self, right: float, each: float, count: int) -> float:
        """Return how many times as fast `count` tokens are with a draft that is right so often, and
        takes so much a token.
        """
        rates, said = HitRates((0.6,)), 0
        while said < count:
            guessed = self._pace.length([rates.of(0)] * MOST, each, explores=True)
            hits = 0
            for _ in range(guessed):
                hit = self._random.random() < right
                rates.record(0, hit)
                if not hit:
                    break
                hits += 1
            self._call(guessed, hits + 1, each * guessed)
            said += hits + 1
        return said / self.seconds


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.open(ROOT / "demo" / "checkpoint")


@pytest.mark.parametrize("cost", COSTS)
def test_prose_is_never_much_slower(tokenizer: Tokenizer, cost: str) -> None:
    for path in sorted((ROOT / "docs" / "adr").glob("*.md"))[::2]:
        tokens = tokenizer.encode(path.read_text())
        middle = len(tokens) // 2
        answer = tokens[middle : middle + NEW]
        assert Play(COSTS[cost]).looked_up(tokens[:middle], answer) > NEVER_LESS, path.name


@pytest.mark.parametrize(("cost", "least"), [("20b", 1.5), ("cheap", 2.5), ("dear", 1.0)])
def test_edited_code_is_faster(tokenizer: Tokenizer, cost: str, least: float) -> None:
    for name, old, new in (
        ("candidates", "scores", "points"),
        ("row_moves", "cache", "store"),
        ("sampling", "logits", "values"),
    ):
        code = (ROOT / "runtime" / f"{name}.py").read_text()
        answer = tokenizer.encode(code.replace(old, new))[:NEW]
        assert Play(COSTS[cost]).looked_up(tokenizer.encode(code), answer) > least, name


def test_new_tokens_cost_nothing() -> None:
    tokens = np.random.default_rng(0).permutation(1000).tolist()
    assert Play(COSTS["20b"]).looked_up(tokens[:500], tokens[500:]) == 1


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("right", [0.0, 0.3, 0.6, 0.9])
def test_a_draft_is_never_much_slower(cost: str, right: float) -> None:
    for each in (0.05, 0.3, 0.9):
        assert Play(COSTS[cost]).drafted(right, each, 400) > NEVER_LESS, each


def test_a_good_draft_is_faster() -> None:
    assert Play(COSTS["20b"]).drafted(0.9, 0.1, 400) > 1.25
    assert Play(COSTS["cheap"]).drafted(0.9, 0.1, 400) > 2


def test_a_text_that_begins_to_repeat_is_noticed() -> None:
    """After guesses of every kind failed for long, those that hit again count."""
    random, play = np.random.default_rng(0), Play(COSTS["20b"])
    noise = random.integers(0, 12, 3000).tolist()  # pairs and triples repeat, and mean nothing
    assert play.looked_up(noise[:500], noise[500:]) > NEVER_LESS
    play.seconds = 0
    assert play.looked_up(noise, noise[:400]) > 1.5


@settings(max_examples=200, deadline=None)
@given(tokens=st.lists(st.integers(0, 3), min_size=1, max_size=60), count=st.integers(1, 9))
def test_repeated_against_a_plain_search(tokens: list[int], count: int) -> None:
    best, place = 0, 0
    for end in range(1, len(tokens)):
        matched = 0
        while (
            matched < min(end, LONGEST_MATCH) and tokens[end - 1 - matched] == tokens[-1 - matched]
        ):
            matched += 1
        if matched >= max(best, 1):
            best, place = matched, end
    found = repeated(np.array(tokens), count)
    if best < LEAST_MATCH:
        assert found == (0, [])
        return
    turned = list(tokens)
    for following in range(count):
        turned.append(turned[place + following])
    assert found == (best, turned[len(tokens) :])


def test_costs_between_and_beyond_what_was_measured() -> None:
    costs = CallCosts()
    costs.record(1, 2.0)
    assert costs.seconds(3) == 2 + 2 * 1.0  # half of one token's each, until a call shows it
    costs.record(5, 4.0)
    assert costs.seconds(3) == 3
    assert costs.seconds(9) == 6
    for _ in range(60):
        costs.record(1, 4.0)
    assert costs.seconds(1) == pytest.approx(4, abs=0.01)
    assert costs.singles == 61
