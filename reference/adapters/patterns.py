"""The patterns of `rank_pattern` and `alpha_pattern`: a number for each module whose name ends in
one.

PEFT matches `(.*\\.)?(PATTERN)$` as a regular expression, and the first pattern counts. Patterns
come from strangers: those that could take a regular expression's time without end are refused.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gptoss_onnx.checkpoint.fields import Fields, shown

MOST = 20_000  # of one adapter: an initialisation may name every module
MOST_EXPRESSIONS = 500  # of these, those that are more than a name
LONGEST = 300  # letters
# In one expression. Each may multiply its time: by the length of a name, by what a group offers.
MOST_REPEATED, MOST_GROUPS, MOST_OFFERED = 2, 2, 40
LARGEST = 1 << 20
_NAME = re.compile(r"[\w.]+")
_QUANTIFIER = re.compile(r"(?<!\\)[*+?{]")
# a repeated group, a reference to one, or a look around: what can take exponential time, or more
_COSTLY = re.compile(r"\)[*+?{]|\\[1-9]|\(\?")


@dataclass(frozen=True)
class Patterns:
    """Numbers by the ends of names.

    Attributes:
        names: plain names, with the place of each among all patterns and its number.
        expressions: the place, the expression and the number of every other.
    """

    names: Mapping[str, tuple[int, float]]
    expressions: tuple[tuple[int, re.Pattern[str], float], ...]

    @classmethod
    def read(cls, fields: Fields, key: str) -> Self:
        """Return the patterns of a key, which may be missing; notes what is wrong with them."""
        found: Any = fields.value(key) or {}
        if not isinstance(found, Mapping) or len(found) > MOST:
            fields.wrong(key, f"an object of at most {MOST} patterns")
            return cls({}, ())
        names: dict[str, tuple[int, float]] = {}
        expressions: list[tuple[int, re.Pattern[str], float]] = []
        inner = Fields(found, fields.problems, f"{fields.prefix}{key}.")
        for place, pattern in enumerate(found):
            number = inner.number(pattern)
            if number > LARGEST:
                inner.wrong(pattern, f"at most {LARGEST}")
            if _NAME.fullmatch(pattern):
                names[pattern] = (place, number)
                continue
            expression = _compiled(pattern)
            if expression is None or len(expressions) == MOST_EXPRESSIONS:
                fields.problems.add(
                    f"{fields.prefix}{key}: found the pattern {shown(pattern)}, expected a name, "
                    f"or at most {MOST_EXPRESSIONS} expressions, each with at most "
                    f"{MOST_REPEATED} repetitions and {MOST_GROUPS} groups, none of them repeated"
                )
                break
            expressions.append((place, expression, number))
        return cls(names, tuple(expressions))

    def match(self, name: str) -> float | None:
        """Return the number of the first pattern that fits a module's name; None without one."""
        parts = name.split(".")
        ends = (".".join(parts[index:]) for index in range(len(parts)))
        fitting = [self.names[end] for end in ends if end in self.names]
        fitting += [(place, number) for place, one, number in self.expressions if one.match(name)]
        return min(fitting)[1] if fitting else None


def _compiled(pattern: str) -> re.Pattern[str] | None:
    """Return the expression that PEFT makes of a pattern; None for one that is not taken."""
    if len(pattern) > LONGEST or _COSTLY.search(pattern):
        return None
    if len(_QUANTIFIER.findall(pattern)) > MOST_REPEATED:
        return None
    if pattern.count("(") > MOST_GROUPS or pattern.count("|") > MOST_OFFERED:
        return None
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError):
        return None
