"""A tiny checkpoint with a byte-level tokenizer and a chat template, and its exported package, made
once a run.
"""

import shutil
from pathlib import Path

import pytest
import tokenizers

from gptoss_onnx.exporter import export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document

LONGEST = 160  # tokens the model takes: short, so that going beyond it is cheap
VOCAB = 320
CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[assistant]"
)


def tiny_checkpoint(factory: pytest.TempPathFactory) -> Path:
    """Return the checkpoint's folder; not to be written to."""
    folder = factory.getbasetemp() / "tiny-checkpoint"
    if not folder.exists():
        sizes = {"max_position_embeddings": LONGEST, "vocab_size": VOCAB}
        make_checkpoint(folder, tiny_document(num_hidden_layers=2, **sizes))
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return folder


def tiny_package(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the checkpoint's package; not to be written to."""
    folder = factory.getbasetemp() / "tiny-package"
    if not folder.exists():
        export(tiny_checkpoint(factory), folder)
    return folder


def clone(folder: Path, to: Path) -> Path:
    """Copy a checkpoint or package with its times, to be spoilt; returns `to`."""
    shutil.copytree(folder, to)
    return to


def byte_tokenizer() -> tokenizers.Tokenizer:
    """Return a tokenizer that gives every byte of a text an id of its own."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: id_ for id_, letter in enumerate(alphabet)}, [])
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return backend
