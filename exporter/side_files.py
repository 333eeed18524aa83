"""Copy a checkpoint's tokenizer, chat template and generation settings into a package.

They are copied byte for byte. Where the checkpoint has no generation_config.json, the package's is
made from config.json and from the tokenizer, whose harmony tokens say where a generation ends.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptoss_onnx.added_tokens import END_OF_TEXT, TOKENIZER_LIMIT, added_tokens, harmony_stops
from gptoss_onnx.checkpoint.folder_kinds import CONFIG, GENERATION_CONFIG, TOKENIZER, names_copied
from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.json_text import JSON_LIMIT, printable
from gptoss_onnx.reference import Checkpoint

EOS = "eos_token_id"
SPECIAL_IDS = ("bos_token_id", EOS, "pad_token_id")
MOST_IDS = 1 << 31  # what sessions and clients hold an id in


def copy_side_files(checkpoint: Checkpoint, folder: Path) -> tuple[str, ...]:
    """Copy tokenizer and chat template as they came; returns the names of the files that the
    checkpoint has.

    Raises CheckpointError for a file that is too large or lies outside of the checkpoint.
    """
    copied = []
    for name in names_copied():
        content = checkpoint.read(name, TOKENIZER_LIMIT if name == TOKENIZER else JSON_LIMIT)
        if content is not None:
            (folder / name).write_bytes(content)
            copied.append(name)
    return tuple(copied)


@dataclass(frozen=True)
class Settings:
    """The special ids of a package.

    Attributes:
        content: of its generation_config.json.
        special_ids: those that this holds.
        eos_tokens: end a text; where generation_config.json names none, config.json's.
        warnings: what the user should know of them.
    """

    content: bytes
    special_ids: Mapping[str, Any]
    eos_tokens: tuple[int, ...]
    warnings: tuple[str, ...]


def generation_settings(checkpoint: Checkpoint) -> Settings:
    """Return what a package's generation_config.json is to say: what the checkpoint's says, or one
    that is made for it.

    Raises CheckpointError where a special id is not one, and for a tokenizer.json or
    generation_config.json that is not JSON.
    """
    stops, has_added = _stops(checkpoint)
    content = checkpoint.read(GENERATION_CONFIG, JSON_LIMIT)
    warnings = []
    if content is None:
        ids = _special_ids(checkpoint.document, checkpoint.document_path)
        if stops:
            ids[EOS] = list(dict.fromkeys([*_as_list(ids.get(EOS)), *stops.values()]))
            warnings.append(
                f"{checkpoint.folder}: no {GENERATION_CONFIG}: the package's ends a text at "
                f"{_listed(stops.items())}, "
                "as the tokenizer has harmony's tokens"
            )
        content = (json.dumps(ids, indent=2, allow_nan=False) + "\n").encode()
    else:
        path = str(checkpoint.path_of(GENERATION_CONFIG))
        ids = _special_ids(checkpoint.read_json(GENERATION_CONFIG), path)
        known = _as_list(ids.get(EOS))
        lacking = [
            (name, number)
            for name, number in stops.items()
            if number not in known and name != END_OF_TEXT
        ]
        if lacking:
            warnings.append(
                f"{path}: {EOS} lacks {_listed(lacking)}: a generation runs past it; add the id to "
                "that list and "
                "export again"
            )
    eos = _as_list(ids.get(EOS))
    if EOS not in ids:
        document = {EOS: checkpoint.document.get(EOS)}
        eos = _as_list(_special_ids(document, checkpoint.document_path).get(EOS))
    if has_added and not eos:
        warnings.append(
            f"{checkpoint.folder}: neither {GENERATION_CONFIG} nor {CONFIG} has {EOS}: nothing "
            "ends a text before its "
            "length does"
        )
    if checkpoint.layout == "openai" and checkpoint.path_of(TOKENIZER) is None:
        warnings.append(
            f"{checkpoint.folder}: no {TOKENIZER} there, nor above an original/: the package takes "
            "and gives token ids alone; name one with --tokenizer"
        )
    return Settings(content, ids, tuple(eos), tuple(warnings))


def _stops(checkpoint: Checkpoint) -> tuple[dict[str, int], bool]:
    """Return harmony's end tokens, if the tokenizer has them, and whether it has any special
    tokens.
    """
    content = checkpoint.read(TOKENIZER, TOKENIZER_LIMIT)
    if content is None:
        return {}, False
    path = checkpoint.path_of(TOKENIZER) or checkpoint.folder
    tokens = added_tokens(content, str(path), CheckpointError)
    stops = harmony_stops(tokens)
    beyond = [
        name for name, number in stops.items() if not 0 <= number < checkpoint.config.vocab_size
    ]
    if beyond:
        raise CheckpointError(
            f"{path}: found id {stops[beyond[0]]} for {beyond[0]}, expected 0 to "
            f"{checkpoint.config.vocab_size - 1} "
            "(vocab_size of config.json)"
        )
    return stops, bool(tokens)


def _special_ids(document: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the special ids of a document, each an integer or a list of integers."""
    ids = {key: document[key] for key in SPECIAL_IDS if document.get(key) is not None}
    for key, value in ids.items():
        least = 0 if key == EOS else -1  # what some tools write for a pad token that there is not
        if not all(type(entry) is int and least <= entry < MOST_IDS for entry in _as_list(value)):
            raise CheckpointError(
                f"{path}: {key}: found {printable(repr(value)[:80])}, expected a token id or a "
                "list of them"
            )
    return ids


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _listed(tokens: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} ({number})" for name, number in tokens)
