"""A GGUF file in which bytes of the header were changed opens, or is refused in one line."""

import random
import time
from pathlib import Path

import pytest

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference import open_checkpoint
from support.gguf_files import Recipe, write_gguf
from support.transformers_models import write_by_transformers

COUNT = 300
SECONDS = 20.0  # for one; it takes a hundredth of a second
VALUES = (0, 1, 0x7F, 0x80, 0xFF)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with a tokenizer; not to be written to."""
    folder = tmp_path_factory.mktemp("mutations")
    write_by_transformers("gpt_oss", {"num_hidden_layers": 1}, folder / "s", sharded=False)
    return write_gguf(folder / "s", folder / "whole" / "x.gguf", Recipe())


def test_spoilt_headers_are_refused_or_harmless(whole: Path, tmp_path: Path) -> None:
    content = whole.read_bytes()
    header = content.rindex(b"blk.0.") + 100  # tensors follow
    opened, refusals = 0, []
    for seed in range(COUNT):
        draw, spoilt = random.Random(seed), bytearray(content)
        at = draw.randrange(header)
        if draw.random() < 0.3:
            width = draw.choice((4, 8))
            spoilt[at : at + width] = draw.choice(VALUES).to_bytes(1, "little") * width
        else:
            spoilt[at] = draw.choice((draw.randrange(256), *VALUES))
        (tmp_path / "x.gguf").write_bytes(spoilt)
        begin = time.perf_counter()
        try:
            with open_checkpoint(tmp_path / "x.gguf"):
                opened += 1
        except CheckpointError as error:
            refusals.append(str(error))
        assert time.perf_counter() - begin < SECONDS, seed
    assert opened > 2 and len(refusals) > COUNT // 2
    assert not [text for text in refusals if "\n" in text]
