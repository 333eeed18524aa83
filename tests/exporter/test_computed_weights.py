"""Computed weights are written beside the checkpoint's files, in little memory."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gptoss_onnx.errors import PackageError
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.exporter.conversion import PIECE, SPAN, Conversion
from gptoss_onnx.package import INT8_FILE
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document

QUIET = LoggedProgress(logging.getLogger(__name__))
QUANTIZING_LIMIT = 32 << 20  # bytes


def test_a_file_of_the_checkpoint_is_not_written_over(tmp_path: Path) -> None:
    """A link of that name in the package would lead into the checkpoint."""
    (tmp_path / "theirs").write_text("weights")
    os.link(tmp_path / "theirs", tmp_path / INT8_FILE)
    with pytest.raises(PackageError, match="the checkpoint has a file of this name"):
        file = ComputedWeights().lay_out(INT8_FILE, what="they", doing="writing", alignment=8)
        file.write(tmp_path, QUIET)
    assert (tmp_path / "theirs").read_text() == "weights"


@pytest.mark.parametrize("width", [1, 2880, PIECE, 2 * PIECE, SPAN, 2880 * 5760])
def test_progress_is_told_after_a_few_million_numbers(width: int) -> None:
    """Or after a row, as an expert of (in, out) is one."""
    span = Conversion((), 1 << 20, width, lambda *_: ()).span
    assert span == 1 or SPAN / 2 < span * width <= SPAN


def test_quantizing_streams(tmp_path: Path) -> None:
    """A matrix of 256 MB is quantized in a few MB of anonymous memory."""
    document = tiny_document(
        num_hidden_layers=1, hidden_size=2048, vocab_size=1 << 16, tie_word_embeddings=False
    )
    make_checkpoint(tmp_path / "checkpoint", document, sparse=True)
    code = """
import logging
import sys
from pathlib import Path
import onnx_ir as ir
import torch
from gptoss_onnx.exporter import int8_projections
from gptoss_onnx.exporter.computed_weights import ComputedWeights
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference import open_checkpoint

def anonymous():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

peak = 0
quantize = int8_projections.quantize_int8
def watched(weight):
    global peak
    peak = max(peak, anonymous())
    return quantize(weight)

quantize(torch.ones(64, 2048))  # what torch allocates once
int8_projections.quantize_int8 = watched
with open_checkpoint(sys.argv[1]) as checkpoint:
    weights = ComputedWeights()
    graph, source = ir.Graph([], [], nodes=[]), "lm_head.weight"
    weights.add(graph, int8_projections.quantizing(checkpoint, checkpoint.named[source], "lm_head"))
    before = anonymous()
    progress = LoggedProgress(logging.getLogger())
    output = Path(sys.argv[2])
    weights.lay_out(output.name, what="", doing="", alignment=8).write(output.parent, progress)
print(peak - before)
"""
    paths = [str(tmp_path / "checkpoint"), str(tmp_path / "int8")]
    command = [sys.executable, "-c", code, *paths]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < QUANTIZING_LIMIT
    assert (tmp_path / "int8").stat().st_size > 1 << 27


# bytes: half of what the weights take; pieces of 2 M values need less
CONVERTING_LIMIT = 160_000_000
CONVERTING = """
import logging
import sys
from pathlib import Path
import onnx_ir as ir
import torch
from gptoss_onnx.exporter.ort import weights as ort_weights
from gptoss_onnx.progress import LoggedProgress
from gptoss_onnx.reference import open_checkpoint

def anonymous():
    lines = open("/proc/self/status")
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

_, checkpoint, output, tensor, method, converter = sys.argv
peak = 0
convert = getattr(ort_weights, converter)
def watched(blocks):
    global peak
    converted = convert(blocks)
    peak = max(peak, anonymous())
    return converted

convert(torch.zeros(2, 1, 16, dtype=torch.uint8))  # what torch allocates once
setattr(ort_weights, converter, watched)
with open_checkpoint(checkpoint) as opened:
    weights = ort_weights.OrtWeights(opened)
    getattr(weights, method)(ir.Graph([], [], nodes=[]), tensor)
    before = anonymous()
    (file,) = weights.lay_out(Path(output).name)
    file.write(Path(output).parent, LoggedProgress(logging.getLogger()))
print(peak - before)
"""


@pytest.mark.parametrize(
    ("experts", "suffix", "method", "converter"),
    [
        (16, "", "mxfp4_uint8", "mxfp4_as_uint8"),
        (32, "", "mxfp4_int4", "mxfp4_as_int4"),
        (32, "_blocks", "mxfp4_by_column", "mxfp4_by_column"),
    ],
    ids=["8-bit integers", "4-bit integers", "MXFP4 for CUDA"],
)
def test_converting_streams(
    tmp_path: Path, experts: int, suffix: str, method: str, converter: str
) -> None:
    """Experts of 265 MB are written in less anonymous memory than they take."""
    document = tiny_document(
        num_hidden_layers=1, hidden_size=2880, intermediate_size=2880, num_local_experts=experts
    )
    make_checkpoint(tmp_path / "checkpoint", document, sparse=True)
    tensor = f"model.layers.0.mlp.experts.gate_up_proj{suffix}"
    script = [sys.executable, "-c", CONVERTING]
    command = [
        *script,
        str(tmp_path / "checkpoint"),
        str(tmp_path / "own"),
        tensor,
        method,
        converter,
    ]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (tmp_path / "own").stat().st_size > 260_000_000
    assert 0 < grown < CONVERTING_LIMIT
