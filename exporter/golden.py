"""Golden vectors: small conformance cases from the reference with which a client in any language
proves itself.

`golden/golden.json` holds, per case, the token ids, a greedy continuation, and for some positions
the largest logits, the logits at seeded vocabulary indices, and the logsumexp of all of them:
enough to notice any error, at a size that can be shipped. Legend: T recorded positions, V
vocabulary.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptoss_onnx.added_tokens import TOKENIZER_LIMIT
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.files import read_file
from gptoss_onnx.package import GOLDEN_FILE
from gptoss_onnx.reference.decoder import Decoder
from gptoss_onnx.reference.greedy import greedy
from gptoss_onnx.reference.threads import threads_for
from gptoss_onnx.rust_panics import foreign_errors, quiet_panics
from gptoss_onnx.tokenizer_file import load_tokenizer

GREEDY_TOKENS = 64
TOP = 64
SAMPLED = 256
POSITIONS = 24  # recorded positions of one case at most
WINDOWS = 4  # the long case spans this many windows
LONGEST = 512  # but no more tokens than this
SEED = 20250805
ADVICE = "download it again"
# parameters up to which one thread is faster than two that wait for each other
TEXTS = {
    "short": "It was a bright morning, and she",
    "paragraph": (
        "When the rain had stopped they walked down to the village together, talking of the letter "
        "that had come "
        "that day, and of what her brother would say to it when he returned."
    ),
}


@dataclass(frozen=True)
class Prompt:
    """One case before the reference has seen it."""

    name: str
    text: str | None
    token_ids: list[int]


def write_golden(model: Decoder, folder: Path, tokenizer_file: Path | None) -> None:
    """Write `golden/golden.json` under `folder` from forward passes of the reference in float32.

    Args:
        model: the reference with its weights.
        folder: the package folder.
        tokenizer_file: the checkpoint's `tokenizer.json`; without one the prompts are random ids
            alone.

    Raises CheckpointError where a logit is not finite: no client could be held to it.
    """
    with threads_for(model):
        document = _document(model, tokenizer_file)
    path = folder / GOLDEN_FILE
    path.parent.mkdir()
    text = json.dumps(document, separators=(",", ":"), allow_nan=False) + "\n"
    path.write_text(text, encoding="utf-8")


def _document(model: Decoder, tokenizer_file: Path | None) -> dict[str, Any]:
    vocabulary = model.config.vocab_size
    generator = torch.Generator().manual_seed(SEED)
    indices = torch.randperm(vocabulary, generator=generator)[:SAMPLED].sort().values
    prompts = _prompts(model, tokenizer_file, generator)
    count = _continued(model.config.longest)
    continuations = greedy(model, [prompt.token_ids for prompt in prompts], count)
    cases = [_record(model, *case, indices) for case in zip(prompts, continuations, strict=True)]
    return {
        "format": "gptoss-onnx-golden",
        "format_version": 1,
        "vocab_size": vocabulary,
        "sampled_indices": indices.tolist(),
        "cases": cases,
    }


def _prompts(
    model: Decoder, tokenizer_file: Path | None, generator: torch.Generator
) -> list[Prompt]:
    config = model.config
    room = config.longest - _continued(config.longest)
    length = min(WINDOWS * max((8, *config.windows)), LONGEST, room)
    random_ids = torch.randint(config.vocab_size, (length,), generator=generator).tolist()
    prompts = [
        Prompt("random-beyond-window", None, random_ids),
        Prompt("one-token", None, random_ids[:1]),
    ]
    if tokenizer_file is not None:
        encoded = _encode_texts(tokenizer_file).items()
        prompts += [Prompt(name, TEXTS[name], ids) for name, ids in encoded if 0 < len(ids) <= room]
    for prompt in prompts:
        if max(prompt.token_ids) >= config.vocab_size:
            raise CheckpointError(
                f"{tokenizer_file}: found token id {max(prompt.token_ids)} for "
                f"{prompt.text!r:.40}, expected 0 to "
                f"{config.vocab_size - 1} (vocab_size of config.json)"
            )
    return prompts


def _continued(most: int) -> int:
    """Return how many tokens follow a prompt in a model that takes `most` positions."""
    return min(GREEDY_TOKENS, max(1, most // 2))


def _encode_texts(tokenizer_file: Path) -> dict[str, list[int]]:
    """Return the token ids of each text; raises CheckpointError where the file is no tokenizer that
    can do that.
    """
    content = read_file(tokenizer_file, TOKENIZER_LIMIT, CheckpointError)
    tokenizer = load_tokenizer(content, tokenizer_file, ADVICE, CheckpointError)
    with (
        foreign_errors(f"{tokenizer_file}: not a tokenizer", ADVICE, CheckpointError),
        quiet_panics(),
    ):
        return {
            name: tokenizer.encode(text, add_special_tokens=False).ids
            for name, text in TEXTS.items()
        }


def _record(
    model: Decoder, prompt: Prompt, continuation: list[int], indices: torch.Tensor
) -> dict[str, Any]:
    last = len(prompt.token_ids) - 1
    positions = torch.linspace(0, last, min(POSITIONS, last + 1)).round().long().unique()
    logits = model.score(prompt.token_ids)[positions]  # (T, V)
    if not logits.isfinite().all():
        raise CheckpointError(
            f"golden vectors: case {prompt.name}: these weights overflow float32, and give logits "
            "that are not "
            "finite; no client can be compared with them"
        )
    top = logits.topk(min(TOP, logits.shape[1]), dim=-1)
    return {
        "name": prompt.name,
        "text": prompt.text,
        "token_ids": prompt.token_ids,
        "greedy": continuation,
        "positions": positions.tolist(),
        "top_indices": top.indices.tolist(),
        "top_logits": _shortest(top.values),
        "sampled_logits": _shortest(logits[:, indices]),
        "logsumexp": _shortest(logits.double().logsumexp(-1).float()),
    }


def _shortest(values: torch.Tensor) -> Any:
    """Return nested lists whose numbers print as the shortest decimals that read back as the same
    float32.
    """
    array = values.numpy()
    if array.ndim == 1:
        return [float(str(value)) for value in array]
    return [_shortest(row) for row in values]
