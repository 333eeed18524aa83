"""Does ONNX Runtime multiply MXFP4 experts as this project stored them? Asked of one known node.

QMoE on the CPU takes the checkpoint's own bytes, but no document of ONNX Runtime says in which
order. Another version may read them differently and raise nothing. So `export` computes what the
first such node gives for two known tokens, by this project's arithmetic, and keeps the answer in
the package. ONNX Runtime is held to it before a session is opened: it runs that node alone, out of
the package's own graph and on the package's own bytes, in milliseconds.

Legend: N tokens, E experts, k of them a token, Hd hidden size.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gptoss_onnx.errors import PackageError, RuntimeUnavailable
from gptoss_onnx.package import EXPERT_CHECK_FILE, Package, read_own_json
from gptoss_onnx.runtime.environment import onnxruntime_errors
from gptoss_onnx.runtime.expert_node import ExpertNode

TOKENS = 2  # the first takes the first k experts, the second the last k
SAMPLED = 64  # entries of each token's result that are kept
# Of the root mean square of the answer. Float32 sums in another order differ by 1e-6 of it; other
# weights by all of it.
LIMIT = 1e-3


@dataclass(frozen=True)
class KnownAnswer:
    """What a node gives for the known tokens; the document `expert_check.json`.

    Attributes:
        node: its name.
        places: entries of a token's result that are kept, ascending.
        answers: float32 (N, places).
    """

    node: str
    places: tuple[int, ...]
    answers: NDArray[np.float32]

    @classmethod
    def of(cls, node: str, result: NDArray[np.float32]) -> Self:
        """Return what is kept of a result (N, Hd)."""
        places = np.unique(np.linspace(0, result.shape[1] - 1, SAMPLED).astype(np.int64))
        return cls(node, tuple(places.tolist()), result[:, places])

    def write(self, folder: Path) -> None:
        """Write the document into a package folder."""
        document = {
            "node": self.node,
            "places": self.places,
            "answers": [[float(value) for value in row] for row in self.answers],
        }
        text = json.dumps(document, allow_nan=False) + "\n"
        (folder / EXPERT_CHECK_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, package: Package) -> Self:
        """Read the document; raises PackageError if it is missing or malformed."""
        path = package.folder / EXPERT_CHECK_FILE
        document = read_own_json(package.folder, EXPERT_CHECK_FILE)
        if not document:
            raise PackageError(
                f"{path}: no such file, but the graph has experts in MXFP4, which ONNX Runtime is "
                "checked by; export the package again"
            )
        try:
            places = np.asarray(document["places"])
            answers = np.asarray(document["answers"], np.float32)
            fits = (
                isinstance(document["node"], str)
                and places.ndim == 1
                and 0 < places.size <= SAMPLED
                and places.dtype.kind == "i"
                and answers.shape == (TOKENS, places.size)
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise PackageError(
                f"{path}: found something else than the answers for {TOKENS} tokens at 1 to "
                f"{SAMPLED} places; export the package again"
            )
        return cls(document["node"], tuple(places.tolist()), answers)


def known_tokens(hidden: int, experts: int, top_k: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two tokens float32 (N, Hd) between -1 and 1, and their router's logits (N, E).

    The logits are -inf except for the k experts of each token.
    """
    numbers = np.arange(1, TOKENS * hidden + 1, dtype=np.uint64) * 2654435761 % (1 << 32)
    tokens = (numbers.astype(np.float64) / (1 << 31) - 1).astype(np.float32)
    logits = np.full((TOKENS, experts), -np.inf, np.float32)
    for token, chosen in enumerate(known_experts(experts, top_k)):
        logits[token, chosen] = np.linspace(1, 0, top_k)
    return tokens.reshape(TOKENS, hidden), logits


def known_experts(experts: int, top_k: int) -> list[list[int]]:
    """Return the experts that each of the two tokens takes."""
    return [list(range(top_k)), list(range(experts - top_k, experts))]


def check_experts(onnxruntime: ModuleType, package: Package) -> None:
    """Run the known node of a package, if it has one, and compare.

    Raises:
        RuntimeUnavailable: this ONNX Runtime gives another answer.
        PackageError: the package has no answer, or ONNX Runtime cannot run the node.
    """
    manifest = package.manifest
    if not (manifest.has_op("QMoE") and manifest.runs_on("cpu")):
        return
    node = ExpertNode.find(package)
    if node is None:
        return
    known = KnownAnswer.read(package)
    if known.node != node.name or known.places[-1] >= node.hidden or known.places[0] < 0:
        raise PackageError(
            f"{package.folder / EXPERT_CHECK_FILE}: found the answer of {known.node!r:.80}, "
            f"expected that of {node.name!r:.80}, {node.hidden} wide; export the package again"
        )
    with onnxruntime_errors(
        onnxruntime, PackageError, f"{package.graph}: ONNX Runtime cannot run {node.name!r:.80}"
    ):
        found = _run(onnxruntime, package, node)[:, list(known.places)]
    difference = float(np.sqrt(np.mean((found - known.answers) ** 2)))
    size = float(np.sqrt(np.mean(known.answers**2)))
    if not difference <= LIMIT * size:
        raise RuntimeUnavailable(
            f"{package.folder}: ONNX Runtime {onnxruntime.__version__} gives {node.name!r:.80} a "
            f"result that is off by {difference / size if size else difference:.1e}, expected "
            f"{LIMIT:.0e} at most: it reads MXFP4 in another order than this package "
            f"(by {manifest.exporter:.60}) has it, or the weights have changed; use ONNX Runtime "
            f"{manifest.onnxruntime}, or export with --experts int8"
        )


def _run(onnxruntime: ModuleType, package: Package, node: ExpertNode) -> NDArray[np.float32]:
    """Return the node's result for the known tokens, with biases of zero: float32 (N, Hd)."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(package.weights_root)
    )
    session = onnxruntime.InferenceSession(
        node.model(TOKENS), options, providers=["CPUExecutionProvider"]
    )
    tokens, logits = known_tokens(node.hidden, node.experts, node.top_k)
    feeds = {node.operands[0]: tokens, node.operands[1]: logits}
    for name, width in node.biases:
        feeds[name] = np.zeros((node.experts, width), np.float32)
    (result,) = session.run(None, feeds)
    return np.asarray(result)
