"""The first op of a package whose result departs from the reference, in the calls of a case.

The layers' results are looked at first, in every call up to the first that departs; then that
layer's inside, in that call.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import onnx
import torch

from gptoss_onnx.exporter.nodes import CONTRIB
from gptoss_onnx.layer_names import layer_of
from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.threads import threads_for
from gptoss_onnx.runtime import Session
from gptoss_onnx.validation.divergence.bounds import point_bound
from gptoss_onnx.validation.divergence.contrib import prepared_departure, prepared_values
from gptoss_onnx.validation.divergence.forced import Departed, Departure, Forcing, forcing
from gptoss_onnx.validation.divergence.named_graph import NamedGraph, place
from gptoss_onnx.validation.divergence.points import (
    Point,
    check_size,
    inner_points,
    layer_points,
    outer_points,
)
from gptoss_onnx.validation.divergence.probe import Probe, read_graph
from gptoss_onnx.validation.divergence.recording import Recording
from gptoss_onnx.validation.divergence.reference_run import ReferenceRun
from gptoss_onnx.validation.report.document import Divergence


@dataclass(frozen=True)
class _Stop:
    """The step that departs, the number of its call, where, and what the layer had taken if it is
    one of a layer.
    """

    index: int
    number: int
    departure: Departure
    taken: tuple[Any, ...] | None

    @property
    def layer(self) -> int:
        """The layer's number, if it is one of a layer."""
        found = layer_of(self.departure.point.module)
        assert found is not None
        return found


@dataclass(frozen=True)
class _Search:
    """What both passes need."""

    session: Session
    model: Decoder
    recording: Recording
    graph: onnx.ModelProto
    named: NamedGraph
    allowed: Callable[[Point], float]

    def probe(self, points: Sequence[Point], others: Sequence[str] = ()) -> Probe:
        names = dict.fromkeys([*(point.value for point in points), *others])
        return Probe(self.session, self.graph, list(names))

    def forcing(self, points: Sequence[Point]) -> AbstractContextManager[Forcing]:
        return forcing(self.model, points, self.allowed)


def first_divergence(session: Session, model: Decoder, recording: Recording) -> Divergence | None:
    """Return where the calls of a case depart first, None where no module is off by itself.

    Args:
        session: of the package; it is opened twice more, with other outputs.
        model: the reference, with the weights that the package has.
        recording: the calls that the case made.

    Raises:
        ParityError: the graph's nodes have other names than an export gives them, or the results
            of one call's layers would not fit.
        InputError, PackageError, RuntimeUnavailable: the calls cannot be run again.
    """
    graph = read_graph(session)
    named = NamedGraph(graph.graph)
    layer_points(named, model)  # refuses a graph of other names
    check_size(model, recording)
    allowed = point_bound(session.manifest, session.activations, model)
    search = _Search(session, model, recording, graph, named, allowed)
    with threads_for(model):
        points = outer_points(named, model)
        stop = _among_layers(search, points)
        if stop is None:
            return None
        if stop.taken is None:
            return _describe(search, points, stop.departure, stop)
        inner = inner_points(named, model, stop.layer)
        found = _inside(search, inner, stop)
        if found is None:  # what the other outputs change hides it
            return _describe(search, points, stop.departure, stop)
        return _divergence(search, *found, stop)


def _among_layers(search: _Search, points: Sequence[Point]) -> _Stop | None:
    """Run the calls until a layer departs, or what lies before or behind the layers."""
    reference = ReferenceRun(search.model, search.recording, search.session.manifest.kv_dtype)
    with search.probe(points) as probe, search.forcing(points) as forced:
        for index, step in enumerate(probe.replay(search.recording)):
            forced.begin(step)
            try:
                forced.judge_logits(reference.run(step))
            except Departed as departed:
                point = departed.departure.point
                of_layer = layer_of(point.module) is not None and point.side == "out"
                taken = forced.taken if of_layer else None
                return _Stop(index, step.number, departed.departure, taken)
    return None


def _inside(
    search: _Search, points: Sequence[Point], stop: _Stop
) -> tuple[onnx.NodeProto | None, Departure] | None:
    """Run the calls up to that one again, and look into the layer that departs there; returns the
    node at fault.
    """
    assert stop.taken is not None
    named, model, layer = search.named, search.model, stop.layer
    block = model.get_submodule(f"model.layers.{layer}")
    others = prepared_values(named, layer)
    with (
        search.probe(points, others) as probe,
        search.forcing(points) as forced,
        torch.inference_mode(),
    ):
        for index, step in enumerate(probe.replay(search.recording)):
            if index < stop.index:
                continue
            forced.begin(step)
            try:
                block(*stop.taken)
            except Departed as departed:
                node = _maker(search, points, departed.departure)
                if node is not None and node.domain == CONTRIB:
                    at_fault = prepared_departure(
                        named, model, layer, step.values, forced.real, search.allowed
                    )
                    if at_fault is not None:
                        return at_fault
                return node, departed.departure
            return None
    return None


def _maker(search: _Search, points: Sequence[Point], departure: Departure) -> onnx.NodeProto | None:
    """Return the node that matters between the points and the one that departs."""
    value = departure.point.value
    return search.named.maker(value, {point.value for point in points} - {value})


def _describe(
    search: _Search, points: Sequence[Point], departure: Departure, stop: _Stop
) -> Divergence:
    return _divergence(search, _maker(search, points, departure), departure, stop)


def _divergence(
    search: _Search, node: onnx.NodeProto | None, departure: Departure, stop: _Stop
) -> Divergence:
    layer, op = place(node) if node is not None else (None, departure.point.value)
    where = op if layer is None else f"layers.{layer} {op}"
    numbers = (
        f"relative error {departure.relative:.1e}, inputs rms {departure.inputs_rms:.2g}, "
        f"max {departure.inputs_max:.2g}"
    )
    text = f"{where} ({numbers}), call {stop.number + 1} of {search.recording.graph_calls}"
    return Divergence(
        layer, op, departure.relative, departure.inputs_rms, departure.inputs_max, text
    )
