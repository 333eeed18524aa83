"""The table of answers in harmony, well-formed and not: `harmony_answers.json` beside this file.

A case says a text with control tokens, and what of it is content, reasoning and calls. Where one
says no prompt, the answer follows `<|start|>assistant`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT = "<|start|>user<|message|>Why?<|end|><|start|>assistant"


@dataclass(frozen=True)
class HarmonyCase:
    """One answer.

    Attributes:
        calls: names and arguments.
        tools: the names that the request offered.
        needs_tools: what is called is known only beside the names that were offered.
        counts_tokens: its header lacks a control token, so that the length in tokens decides where
            the text begins.
    """

    name: str
    is_well_formed: bool
    said: str
    content: str
    reasoning: str
    calls: list[tuple[str, str]]
    prompt: str
    stop: tuple[str, ...]
    tools: tuple[str, ...]
    needs_tools: bool
    counts_tokens: bool


def harmony_cases() -> list[HarmonyCase]:
    """Return all cases of the table."""
    path = Path(__file__).with_suffix(".json")
    return [_case(case) for case in json.loads(path.read_text(encoding="utf-8"))]


def _case(case: Mapping[str, Any]) -> HarmonyCase:
    return HarmonyCase(
        case["name"],
        case["well_formed"],
        case["said"],
        case.get("content", ""),
        case.get("reasoning", ""),
        [(name, arguments) for name, arguments in case.get("calls", [])],
        case.get("prompt", PROMPT),
        tuple(case.get("stop", ())),
        tuple(case.get("tools", ("get_weather", "tide"))),
        case.get("needs_tools", False),
        case.get("counts_tokens", False),
    )
