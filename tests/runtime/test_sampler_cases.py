"""The table of sampler cases that every client is tested with, `clients/sampler_cases.json`,
against exact arithmetic.

Nothing here is shared with a client: logits and settings become fractions, and exponentials have 60
digits. `python tests/runtime/test_sampler_cases.py` writes the expected values of the table anew.
"""

import json
import math
import struct
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parents[1] / "clients" / "sampler_cases.json"
SETTINGS = ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"]
DIGITS = 60
# An exponent below this is probability 0: e^-1000 is less than any float64 above 0.
LEAST_EXPONENT = -1000

Case = dict[str, Any]


def _cases() -> list[Case]:
    return list(json.loads(TABLE.read_text())["cases"])


@pytest.mark.parametrize("case", _cases(), ids=lambda case: case["name"])
def test_expected_values_are_those_of_exact_arithmetic(case: Case) -> None:
    assert sorted(case) == sorted(["name", "logits", "seen", "settings", "expected"])
    assert list(case["settings"]) == SETTINGS
    assert all(0 <= token < len(case["logits"]) for token in case["seen"])
    assert case["expected"] == expected(case)


def test_names_differ_and_every_kind_of_answer_is_there() -> None:
    cases = _cases()
    assert len({case["name"] for case in cases}) == len(cases)
    assert {next(iter(case["expected"])) for case in cases} == {"token", "probabilities", "error"}


def expected(case: Case) -> dict[str, Any]:
    """Return the token that is taken at temperature 0, else the probabilities (V); or that logits
    are refused.
    """
    logits = [_float32(value) for value in case["logits"]]
    largest = math.nan if any(map(math.isnan, logits)) else max(logits)
    if not math.isfinite(largest):
        return {"error": True}
    settings = case["settings"]
    scores = _penalized(logits, set(case["seen"]), Fraction(settings["repetition_penalty"]))
    best = max(score for score in scores if score is not None)
    if settings["temperature"] == 0:
        return {"token": scores.index(best)}
    temperature = Fraction(settings["temperature"])
    exponents = [None if score is None else (score - best) / temperature for score in scores]
    return {"probabilities": _restricted(exponents, settings)}


def _float32(value: float | str) -> float:
    """Return a logit of the table as the float32 that a client is given."""
    return float(struct.unpack("<f", struct.pack("<f", float(value)))[0])


def _penalized(logits: list[float], seen: set[int], penalty: Fraction) -> list[Fraction | None]:
    """Return the logits after the penalty; None stands for -inf."""
    scores: list[Fraction | None] = []
    for token, logit in enumerate(logits):
        if logit == -math.inf:
            scores.append(None)
        elif token not in seen:
            scores.append(Fraction(logit))
        elif logit > 0:
            scores.append(Fraction(logit) / penalty)
        else:
            scores.append(Fraction(logit) * penalty)
    return scores


def _restricted(exponents: list[Fraction | None], settings: dict[str, Any]) -> list[float]:
    """Return the probabilities (V) after top-k, top-p and min-p, from what stands in the exponent,
    at most 0.
    """
    weights = [_exponential(exponent) for exponent in exponents]
    rising = sorted(exponent for exponent in exponents if exponent is not None)
    if 0 < settings["top_k"] < len(exponents):
        # Tokens at -inf rank below all of `rising`; a k that reaches them keeps every other token.
        least = rising[-min(settings["top_k"], len(rising))]
        weights = [
            Fraction(0) if exponent is None or exponent < least else weight
            for exponent, weight in zip(exponents, weights, strict=True)
        ]
    weights = _nucleus(weights, Fraction(settings["top_p"]))
    limit = Fraction(settings["min_p"]) * max(weights)
    weights = [weight if weight >= limit else Fraction(0) for weight in weights]
    total = sum(weights)
    return [float(weight / total) for weight in weights]


def _nucleus(weights: list[Fraction], top_p: Fraction) -> list[Fraction]:
    """Leave out a token when it and all less probable ones together have at most 1 - top_p of the
    probability.
    """
    room = (1 - top_p) * sum(weights)
    kept = list(weights)
    for token in sorted(range(len(weights)), key=lambda token: weights[token])[:-1]:
        room -= weights[token]
        if room < 0:
            break
        kept[token] = Fraction(0)
    return kept


def _exponential(exponent: Fraction | None) -> Fraction:
    if exponent is None or exponent < LEAST_EXPONENT:
        return Fraction(0)
    with localcontext(prec=DIGITS):
        return Fraction((Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp())


def _write(document: dict[str, Any]) -> None:
    """Write the table with one case a line, so that a changed case is one changed line."""
    about = (
        json.dumps(document["about"], indent=4).replace("\n", "\n  ").replace("\n      ", "\n    ")
    )
    cases = ",\n    ".join(json.dumps(case) for case in document["cases"])
    TABLE.write_text(f'{{\n  "about": {about},\n  "cases": [\n    {cases}\n  ]\n}}\n')


if __name__ == "__main__":
    table = json.loads(TABLE.read_text())
    table["cases"] = [{**case, "expected": expected(case)} for case in table["cases"]]
    _write(table)
