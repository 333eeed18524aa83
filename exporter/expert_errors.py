"""ExpertErrors: how far experts in MXFP4 are from the checkpoint's, measured at once."""

import math
import threading

from gptoss_onnx.manifest import TensorError

_DIGITS = 4  # that are recorded: sums may differ in the last ones from machine to machine


class ExpertErrors:
    """The errors of tensors that are converted in pieces, by several threads."""

    def __init__(self) -> None:
        self._pieces: dict[str, dict[int, tuple[float, float]]] = {}
        self._lock = threading.Lock()

    def add(self, name: str, first: int, lost: float, total: float) -> None:
        """Take the sums of one piece, again where it is converted again.

        Args:
            name: of the tensor.
            first: of its rows.
            lost: the sum of the squared differences; 0 if and only if there are none.
            total: the sum of the squares.
        """
        with self._lock:
            self._pieces.setdefault(name, {})[first] = lost, total

    @property
    def found(self) -> tuple[TensorError, ...]:
        """What the tensors lose that have been converted, in the order of their layers."""
        names = sorted(self._pieces, key=_layer)
        return tuple(TensorError(name, _relative(self._pieces[name])) for name in names)


def said_of(errors: tuple[TensorError, ...]) -> list[str]:
    """Return what the log says of experts that were quantized to MXFP4, a line or none."""
    if not errors:
        return []
    lossy = [entry.relative_rms for entry in errors if entry.relative_rms]
    exact = len(errors) - len(lossy)
    if not lossy:
        return [f"experts: all {exact} tensors are MXFP4 by their values, no number changed"]
    spread = f"{min(lossy):.1%} to {max(lossy):.1%}" if len(lossy) > 1 else f"{lossy[0]:.1%}"
    kept = f"; {exact} are MXFP4 by their values, without loss" if exact else ""
    return [f"experts: {len(lossy)} tensors rounded to MXFP4, off by {spread} (relative RMS){kept}"]


def _relative(pieces: dict[int, tuple[float, float]]) -> float:
    lost, total = (math.fsum(sums) for sums in zip(*pieces.values(), strict=True))
    return float(f"{math.sqrt(lost / total):.{_DIGITS}g}") if lost else 0.0


def _layer(name: str) -> tuple[int, str]:
    """Order `model.layers.10.…` behind `model.layers.9.…`."""
    return int(name.split(".")[2]), name
