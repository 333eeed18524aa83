"""Every kind of file that a checkpoint folder may hold, and what it means for the weights: one
table.

What changes the model and is not computed here is refused, so that no checkpoint is exported as
another model than the one that transformers would load. The table is printed in
docs/checkpoints.md, and a test compares the two.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from gptoss_onnx.checkpoint.fields import Problems

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
ORIGINAL = "original"  # the folder of OpenAI's own layout
METAL = (
    "found model.bin of metal/, which cannot be linked to: q and k are permuted and scaled there, "
    "and each expert's weights lie together; expected Hugging Face's layout, or OpenAI's original/"
)

Meaning = Literal["read", "copied", "refused", "ignored"]


@dataclass(frozen=True)
class FileKind:
    """Files of one kind.

    Attributes:
        patterns: their names, as a shell would match them; a folder's end in `/`.
        what: they are, as a noun.
        meaning: `read` for the graph and the weights, `copied` into the package as they are,
            `refused` because they change the model or leave open which one is meant, `ignored`
            because they do neither.
        remark: why; for refused ones also what to do.
    """

    patterns: tuple[str, ...]
    what: str
    meaning: Meaning
    remark: str

    def matches(self, name: str) -> bool:
        """Whether an entry of a folder, with a `/` behind it if it is a folder, is of this kind."""
        return any(fnmatchcase(name, pattern) for pattern in self.patterns)


_SEVERAL = "a second set of weights"

# The first kind that matches counts.
KINDS = (
    FileKind(
        (CONFIG,),
        "the configuration",
        "read",
        "the architecture; `quantization_config` may only say mxfp4",
    ),
    FileKind((INDEX,), "the index of the weights", "read", "which tensor is in which file"),
    FileKind(
        (GENERATION_CONFIG,),
        "the generation settings",
        "copied",
        "where there are none, the package's are made from config.json and the tokenizer",
    ),
    FileKind(
        (
            TOKENIZER,
            "tokenizer_config.json",
            "special_tokens_map.json",
            "added_tokens.json",
            "chat_template.jinja",
            "chat_template.json",
        ),
        "the tokenizer and the chat template",
        "copied",
        "byte for byte",
    ),
    FileKind(
        ("adapter_config.json", "adapter_model*", "adapters.safetensors", "adapters.npz"),
        "an adapter (LoRA)",
        "refused",
        "transformers adds it to the weights; move it into a folder of its own, which `export "
        "--adapter` adds or leaves out",
    ),
    FileKind(
        (
            "quantize_config.json",
            "quant_config.json",
            "hf_quant_config.json",
            "quantization_config.json",
            "compression_config.json",
            "quanto_qmap.json",
            "modelopt_state*",
        ),
        "the settings of another quantization (GPTQ, AWQ, ModelOpt, compressed-tensors, Quanto)",
        "refused",
        "the weights mean something else with it; export the checkpoint before quantization",
    ),
    FileKind(
        (SINGLE, "model-*-of-*.safetensors"),
        "the weights",
        "read",
        "all of them if there is an index, which must list them all; without an index "
        "model.safetensors alone",
    ),
    FileKind(
        (
            "original/",
            "metal/",
            "consolidated.safetensors",
            "consolidated-*-of-*.safetensors",
            "consolidated.safetensors.index.json",
        ),
        "the weights in OpenAI's, Apple's and Mistral's layouts",
        "ignored",
        "published beside the Hugging Face layout, with the same values; transformers, too, reads "
        "the files above alone. original/ is read where it is named, or is all there is",
    ),
    FileKind(
        (
            "optimizer*",
            "scheduler*",
            "scaler*",
            "rng_state*",
            "random_states*",
            "trainer_state.json",
            "training_args.bin",
            "trainer_log*",
            "global_step*/",
            "checkpoint-*/",
            "runs/",
            "latest",
            "zero_to_fp32.py",
        ),
        "the state of a training",
        "ignored",
        "not part of the model",
    ),
    FileKind(
        ("*.safetensors", "*.safetensors.index.json"),
        _SEVERAL,
        "refused",
        "no reader can know which set is meant; move the one that is not meant away",
    ),
    FileKind(
        (
            "pytorch_model*",
            "tf_model*",
            "flax_model*",
            "consolidated*.pth",
            "*.gguf",
            "*.onnx",
            "*.onnx_data",
            "onnx/",
        ),
        "the weights in another format",
        "ignored",
        "transformers, too, reads safetensors where there are some; where there are none, a GGUF "
        "file of gpt-oss is read",
    ),
    FileKind(
        ("dtypes.json",),
        "the types of the tensors in OpenAI's layout",
        "ignored",
        "the headers of the files say them",
    ),
    FileKind(
        ("vocab.json", "merges.txt", "tokenizer.model", "*.tiktoken", "additional_chat_templates/"),
        "other forms of the tokenizer, other chat templates",
        "ignored",
        "tokenizer.json and the default template are used",
    ),
    FileKind(
        ("*.py",),
        "Python code",
        "ignored",
        "never run; a config.json whose auto_map names some for the model is refused",
    ),
    FileKind(
        ("*",),
        "everything else",
        "ignored",
        "licences, pages, pictures; no reader takes weights from them",
    ),
)


def names_copied() -> tuple[str, ...]:
    """Return the names of the tokenizer's files, which an export copies, in the table's order."""
    kinds = (
        kind
        for kind in KINDS
        if kind.meaning == "copied" and GENERATION_CONFIG not in kind.patterns
    )
    return tuple(name for kind in kinds for name in kind.patterns)


def kind_of(name: str) -> FileKind:
    """Return the kind of an entry of a folder, with a `/` behind its name if it is a folder."""
    return next(kind for kind in KINDS if kind.matches(name))


def note_refused(folder: Path, weights: Collection[str], problems: Problems) -> None:
    """Note in `problems` every entry of a checkpoint's folder that must not be ignored.

    Args:
        folder: the checkpoint's.
        weights: names of the files that the weights are read from.
        problems: gets one line for each kind that is refused.
    """
    found: dict[FileKind, list[str]] = {}
    for path in folder.iterdir():
        if path.name in weights:
            continue
        kind = kind_of(f"{path.name}/" if os.path.isdir(path) else path.name)  # noqa: PTH112 - never raises
        if kind.patterns[0] == SINGLE:
            kind = next(kind for kind in KINDS if kind.what == _SEVERAL)
        if kind.meaning == "refused":
            found.setdefault(kind, []).append(path.name)
    for kind in KINDS:
        if kind in found:
            names = sorted(found[kind])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.add(f"found {', '.join(names[:3])}{more}: {kind.what}: {kind.remark}")


def as_markdown() -> str:
    """Return the table as docs/checkpoints.md has it."""
    rows = ["| Files | What they are | Meaning | Remark |", "|---|---|---|---|"]
    for kind in KINDS:
        files = ", ".join(f"`{pattern}`" for pattern in kind.patterns)
        rows.append(f"| {files} | {kind.what} | {kind.meaning} | {kind.remark} |")
    return "\n".join(rows) + "\n"
