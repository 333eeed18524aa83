"""onnxruntime-genai 0.18 on packages of target ort, beyond one prompt: continuing, rewinding, long
prompts beyond the window, batches, several sequences at once, and its Engine.

What works is held to a fresh generator that gets the whole text at once; what does not is held to
the error that it gives.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference import Decoder, open_checkpoint
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.genai_client import ask, continuations, marks, run, tokens_of

pytestmark = marks

COUNT = 30
MORE = [300, 17, 64, 5, 1200, 9]
WINDOW, SLACK, MOST = 32, 16, 1024  # of the demo; onnxruntime-genai's own; context_length
EXACT = {"model": {"decoder": {"session_options": {"session.disable_prepacking": "1"}}}}
LONG_PROMPT = [(7 * i * i + 3 * i) % 300 for i in range(180)]
ROWS = ["gpt_oss", "mistral", "qwen2", "qwen3", "llama", "gpt2"]


@pytest.fixture(params=["fp4", "int8"])
def package(
    request: pytest.FixtureRequest, ort_package: Package, ort_int8_package: Package
) -> tuple[Path, dict[str, Any]]:
    """A package of the demo checkpoint, and the settings under which its arithmetic is exact."""
    if request.param == "fp4":
        return ort_package.folder, {}
    return ort_int8_package.folder, {"overlay": EXACT}


def golden(package: Path) -> dict[str, dict[str, Any]]:
    document = json.loads((package / "golden" / "golden.json").read_text())
    return {case["name"]: case for case in document["cases"]}


@pytest.mark.parametrize("chunk", [1, 7, 33])
def test_prompts_in_pieces_give_the_same_tokens(
    package: tuple[Path, dict[str, Any]], chunk: int
) -> None:
    folder, settings = package
    cases = golden(folder)
    runs = []
    for case in cases.values():
        ids = case["token_ids"]
        pieces = [("append", [ids[i : i + chunk]]) for i in range(0, len(ids), chunk)]
        runs.append(run(len(ids) + 64, *pieces, ("generate", 64)))
    answers = ask("generate", folder, runs=runs, **settings)
    assert [tokens_of(answer) for answer in answers] == [case["greedy"] for case in cases.values()]


@pytest.mark.parametrize("generated", [1, 20, 64])
def test_a_text_goes_on_after_what_was_generated(
    package: tuple[Path, dict[str, Any]], generated: int
) -> None:
    """`get_logits` before `append_tokens` runs the last generated token: without it 0.18 leaves
    that token's keys and values out, and says nothing.
    """
    folder, settings = package
    cases = list(golden(folder).values())
    first = [case["token_ids"] + case["greedy"][:generated] for case in cases]
    expected = continuations(folder, [ids + MORE for ids in first], COUNT, **settings)
    steps = [("generate", generated), ("logits",), ("append", [MORE]), ("generate", COUNT)]
    runs = [run(400, ("append", [case["token_ids"]]), *steps) for case in cases]
    answers = ask("generate", folder, runs=runs, **settings)
    assert [tokens_of(answer)[generated:] for answer in answers] == expected
    assert [
        answer["sequence"][: len(ids)] for answer, ids in zip(answers, first, strict=True)
    ] == first


def test_without_get_logits_the_last_generated_token_is_lost(ort_package: Package) -> None:
    """A defect of 0.18 (its pull request 1814), whatever the model; once this fails, the advice in
    docs/serving/genai.md can go.
    """
    case = golden(ort_package.folder)["paragraph"]
    whole = case["token_ids"] + case["greedy"][:20] + MORE
    steps = [("append", [case["token_ids"]]), ("generate", 20), ("append", [MORE])]
    (answer,) = ask("generate", ort_package.folder, runs=[run(400, *steps, ("generate", COUNT))])
    assert answer["sequence"][: len(whole)] == whole
    assert tokens_of(answer)[20:] != continuations(ort_package.folder, [whole], COUNT)[0]


def test_rewinding_within_the_cache_of_the_window(package: tuple[Path, dict[str, Any]]) -> None:
    """After a rewind `append_tokens` goes on from there; `generate_next_token` takes the first
    token that was cut off along again.
    """
    folder, settings = package
    case = golden(folder)["short"]
    ids = case["token_ids"]
    sequence = ids + case["greedy"][:20]
    cut = len(ids) + 4
    expected = continuations(
        folder, [sequence[:cut] + MORE, sequence[: cut + 1]], COUNT, **settings
    )
    start = [("append", [ids]), ("generate", 20), ("rewind", cut)]
    runs = [
        run(200, *start, ("append", [MORE]), ("generate", COUNT)),
        run(200, *start, ("generate", COUNT)),
        run(200, *start, ("rewind", 0), ("append", [ids]), ("generate", 64)),
    ]
    appended, generated, again = ask("generate", folder, runs=runs, **settings)
    assert [tokens_of(appended)[20:], tokens_of(generated)[20:]] == expected
    assert tokens_of(again)[20:] == case["greedy"]


def test_rewinding_beyond_it_is_refused_by_name(ort_package: Package) -> None:
    case = golden(ort_package.folder)["paragraph"]
    steps = [("append", [case["token_ids"]]), ("generate", 20), ("rewind", 50)]
    (answer,) = ask("generate", ort_package.folder, runs=[run(200, *steps)])
    assert answer["error"].startswith(
        f"Cannot rewind to 50: the sliding-window KV cache holds only the last {WINDOW + SLACK} of"
    )


def test_cache_slack_lets_a_text_be_rewound_anywhere(ort_package: Package) -> None:
    folder = ort_package.folder
    document = json.loads((folder / "genai_config.json").read_text())
    window = document["model"]["decoder"]["sliding_window"] | {"cache_slack": MOST}
    case = golden(folder)["random-beyond-window"]
    ids = case["token_ids"]
    (expected,) = continuations(folder, [ids[:50] + MORE], COUNT)
    steps = [("append", [ids]), ("generate", 20), ("rewind", 50), ("append", [MORE])]
    runs = [run(400, *steps, ("generate", COUNT))]
    overlay = {"model": {"decoder": {"sliding_window": window}}}
    (answer,) = ask("generate", folder, runs=runs, overlay=overlay)
    assert tokens_of(answer)[20:] == expected


@pytest.mark.parametrize("model_type", ROWS)
def test_long_prompts_beyond_the_window(model_type: str, tmp_path: Path) -> None:
    """Up to 180 tokens over windows of 5 or 8, at once and in pieces: what was evicted is not seen,
    what was not is.
    """
    checkpoint = tmp_path / "checkpoint"
    make_checkpoint(checkpoint, tiny_document(model_type), seed=3)
    package = export(checkpoint, tmp_path / "package", target="ort").folder
    prompt = LONG_PROMPT[: package_longest(package) - COUNT]
    runs = []
    for chunk in (len(prompt), 1, 19):
        pieces = [("append", [prompt[i : i + chunk]]) for i in range(0, len(prompt), chunk)]
        runs.append(run(len(prompt) + COUNT, *pieces, ("generate", COUNT)))
    said = [tokens_of(answer) for answer in ask("generate", package, runs=runs)]
    with open_checkpoint(checkpoint) as opened, torch.inference_mode():
        logits = Decoder.from_checkpoint(opened).score(prompt + said[0])
    assert said == [logits[len(prompt) - 1 : -1].argmax(-1).tolist()] * 3


def package_longest(package: Path) -> int:
    longest: int = json.loads((package / "manifest.json").read_text())["longest"]
    return longest


def test_less_room_than_the_window_is_refused(ort_package: Package) -> None:
    runs = [run(most, ("append", [[5]]), ("generate", 3)) for most in (WINDOW - 1, WINDOW)]
    small, enough = ask("generate", ort_package.folder, runs=runs)
    assert (
        f"capacity ({WINDOW - 1}) must be at least local_window_size ({WINDOW})" in small["error"]
    )
    assert enough["error"] is None


def test_a_batch_of_equal_rows(package: tuple[Path, dict[str, Any]]) -> None:
    folder, settings = package
    long = golden(folder)["random-beyond-window"]["token_ids"]
    rows = [long[:60], long[60:120], long[:60][::-1]]
    expected = continuations(folder, rows, COUNT, **settings)
    batch = run(60 + COUNT, ("append", rows), ("generate", COUNT), batch_size=3)
    (answer,) = ask("generate", folder, runs=[batch], **settings)
    assert answer["tokens"] == expected


def test_a_batch_is_neither_continued_nor_rewound(ort_package: Package) -> None:
    start = [("append", [[5, 6], [7, 8]]), ("generate", 3)]
    runs = [
        run(100, *start, ("append", [[1], [2]]), batch_size=2),
        run(100, *start, ("rewind", 3), batch_size=2),
    ]
    continued, rewound = ask("generate", ort_package.folder, runs=runs)
    assert "AppendTokens can only be called once for batch_size > 1" in continued["error"]
    assert "must be called with new_length=0 when batch_size > 1" in rewound["error"]


def test_several_sequences_of_one_model_at_once(package: tuple[Path, dict[str, Any]]) -> None:
    """Generators share the model's weights and take their steps in turns."""
    folder, settings = package
    cases = golden(folder).values()
    runs = [run(300, ("append", [case["token_ids"]]), *[("generate", 1)] * 64) for case in cases]
    answers = ask("generate", folder, runs=runs, turns=True, **settings)
    assert [tokens_of(answer) for answer in answers] == [case["greedy"] for case in cases]


def test_the_engine_serves_prompts_of_one_token(package: tuple[Path, dict[str, Any]]) -> None:
    folder, settings = package
    prompts = [[5], [300], [17], [64]]
    expected = continuations(folder, prompts, COUNT, **settings)
    answers = ask("serve", folder, prompts=prompts, tokens=COUNT, session=200, **settings)
    assert [answer["tokens"] for answer in answers] == expected
    assert {tuple(answer["ended"]) for answer in answers} == {("MAX_GENERATED_TOKENS", "NONE")}


def test_the_engine_fails_on_longer_prompts(ort_package: Package) -> None:
    """It wants the logits of every position, packages give those of the last one."""
    (answer,) = ask("serve", ort_package.folder, prompts=[[5, 6]], tokens=3, session=200)
    assert answer["tokens"] == []
    assert answer["ended"] == ["FAILED", "ENGINE_EXECUTION_FAILURE"]
