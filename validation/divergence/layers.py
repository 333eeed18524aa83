"""How far the layers of a package are from the reference's, errors of earlier layers included."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gptoss_onnx.custom_ops.library import library_info
from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.threads import threads_for
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.divergence.named_graph import NamedGraph
from gptoss_onnx.validation.divergence.points import Point, check_size, layer_points
from gptoss_onnx.validation.divergence.probe import Probe, Step, read_graph
from gptoss_onnx.validation.divergence.recording import Recording
from gptoss_onnx.validation.divergence.reference_run import ReferenceRun
from gptoss_onnx.validation.judging.error_model import ErrorModel, products_of
from gptoss_onnx.validation.report.document import LayerError


def layer_errors(session: Session, model: Decoder, recording: Recording) -> tuple[LayerError, ...]:
    """Return the relative error of each layer's output over all tokens of the recorded calls: root
    mean square of the difference by that of the reference.

    Args:
        session: of the package; it is opened once more, with other outputs.
        model: the reference, with the weights that the package has.
        recording: the calls.

    Raises:
        ParityError: the graph's nodes have other names than an export gives them, or the results
            of one call's layers would not fit.
        InputError, PackageError, RuntimeUnavailable: the calls cannot be run again.
    """
    graph = read_graph(session)
    points = layer_points(NamedGraph(graph.graph), model)
    check_size(model, recording)
    sums = np.zeros((len(points), 2))  # of squares: difference, reference
    reference = ReferenceRun(model, recording, session.manifest.kv_dtype)
    with (
        threads_for(model),
        Probe(session, graph, [point.value for point in points]) as probe,
        _outputs(model, points) as outputs,
    ):
        for step in probe.replay(recording):
            reference.run(step)
            for index, point in enumerate(points):
                sums[index] += _squares(step, point, outputs[point.module])
    relative = np.sqrt(sums[:, 0] / np.maximum(sums[:, 1], np.finfo(np.float64).tiny))
    allowed = _error_model(session, model, recording)
    return tuple(
        LayerError(layer, float(error), allowed.layer(layer))
        for layer, error in enumerate(relative)
    )


def _error_model(session: Session, model: Decoder, recording: Recording) -> ErrorModel:
    ends = [int(call.lengths.max()) + call.request.longest for call in recording.calls]
    cpu_level = library_info().cpu_level if session.kernels == "native" else ""
    return ErrorModel.of(
        model.config,
        max(ends, default=1),
        products=products_of(session.manifest, session.kernels, cpu_level),
        activations=session.activations,
        cache=session.manifest.kv_dtype,
    )


@contextmanager
def _outputs(model: Decoder, points: Sequence[Point]) -> Iterator[dict[str, Tensor]]:
    """Yield what the modules of `points` gave last, by their names."""
    found: dict[str, Tensor] = {}

    def keeper(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, __, output: found.__setitem__(name, output[0])

    hooks = [
        model.get_submodule(point.module).register_forward_hook(keeper(point.module))
        for point in points
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _squares(step: Step, point: Point, expected: Tensor) -> tuple[float, float]:
    """Return the sums of squares of difference and reference (N, hidden), without padding."""
    columns = np.arange(step.inputs.input_ids.shape[1])
    real = torch.from_numpy((columns < step.inputs.new_lengths[:, None]).ravel())
    wide = expected[real].double()
    found = torch.from_numpy(step.values[point.value]).reshape(expected.shape)[real].double()
    return float((found - wide).square().sum()), float(wide.square().sum())
