"""Run the reference with a package's values in the place of its own, and judge each before it is
taken.

Every module then computes from what the package had found before it, so a departure is the
module's own. Legend: B batch, S columns, N = B·S, T kept positions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gptoss_onnx.reference import Decoder
from gptoss_onnx.reference.decoder import Block
from gptoss_onnx.reference.layers import Call
from gptoss_onnx.validation.divergence.points import LOGITS, Point, Side
from gptoss_onnx.validation.divergence.probe import Step

Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Departure:
    """A point whose value departs: the relative error of the token that is worst off, and root mean
    square and largest magnitude of what the module had taken.
    """

    point: Point
    relative: float
    inputs_rms: float
    inputs_max: float


class Departed(Exception):  # noqa: N818 - it ends a pass, and is no error
    """Ends a forward pass at the first departure."""

    def __init__(self, departure: Departure) -> None:
        super().__init__(departure.point.module)
        self.departure = departure


class Forcing:
    """The hooks of one pass; made by `forcing`.

    Attributes:
        real: bool (N), tokens without padding.
        taken: what the layer took that ran last, for a closer look: input, past and call.
    """

    def __init__(self, points: Sequence[Point], allowed: Callable[[Point], float]) -> None:
        self._points = {(point.module, point.side): point for point in points}
        self._allowed = allowed
        self._values: Values = {}
        self.real = self._kept = torch.ones(0, dtype=torch.bool)
        self._logits = torch.ones(0)
        self._before: Tensor | None = None
        self._rotation: tuple[Tensor | None, Tensor | None] | None = None
        self.taken: tuple[Any, ...] | None = None

    def begin(self, step: Step) -> None:
        """Take the values of a call of the graph."""
        new = step.inputs.new_lengths[:, None]  # (B, 1)
        columns = np.arange(step.inputs.input_ids.shape[1])
        self._values = step.values
        self.real = torch.from_numpy((columns < new).ravel())  # (N)
        self._kept = torch.from_numpy((step.inputs.logit_positions < new).ravel())  # (B·T)
        self._logits = torch.from_numpy(step.logits)
        self._before = self._rotation = self.taken = None

    def take(
        self, module: str, side: Side, expected: Tensor, inputs: Tensor | None = None
    ) -> Tensor:
        """Return the package's value in the place of `expected`, or that where it is no point.

        Raises Departed if it is further off than allowed.
        """
        point = self._points.get((module, side))
        if point is None or point.value not in self._values:
            return expected
        found = torch.from_numpy(self._values[point.value])
        return self.judge(point, found, expected, inputs)

    def judge(self, point: Point, found: Tensor, expected: Tensor, inputs: Tensor | None) -> Tensor:
        """Return `found` in the shape of `expected`; raises Departed as `take`."""
        source = inputs if inputs is not None else self._before
        real = self._kept if point.module in ("model.norm", LOGITS) else self.real
        error = np.inf
        if found.numel() == expected.numel():
            found = found.reshape(expected.shape)
            error = worst_relative(_rows(found, real), _rows(expected, real))
        if not error <= self._allowed(point):
            raise Departed(
                Departure(point, error, *scale_of(expected if source is None else source))
            )
        self._before = found
        return found

    def judge_logits(self, expected: Tensor) -> None:
        """Hold the package's logits to `expected` (B, T, V); raises Departed as `take`."""
        self.judge(Point(LOGITS, "out", LOGITS), self._logits, expected.flatten(0, 1), None)

    def enter(self, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return what a layer takes: its input and the rotation of the call, both as found."""
        x, past, call = args
        x = self.take(name, "in", x)
        if self._rotation is None:
            self._rotation = self._rotate(name, call)
        call = replace(call, rotation=self._rotation)
        self._before = x
        self.taken = x, past, call
        return self.taken

    def _rotate(self, name: str, call: Call) -> tuple[Tensor | None, Tensor | None]:
        cos, sin = call.rotation
        if cos is None or sin is None:
            return call.rotation
        return (
            self.take(name, "cos", cos.flatten(0, 1)).reshape(cos.shape),
            self.take(name, "sin", sin.flatten(0, 1)).reshape(sin.shape),
        )


@contextmanager
def forcing(
    model: Decoder, points: Sequence[Point], allowed: Callable[[Point], float]
) -> Iterator[Forcing]:
    """Give the modules of `points` the package's values while the block runs; `allowed` is the
    relative error up to which they are taken for the reference's.
    """
    forced = Forcing(points, allowed)
    hooks = []
    named = {point.module for point in points}
    for name, module in model.named_modules():
        if isinstance(module, Block):
            hooks.append(module.register_forward_pre_hook(_entering(forced, name)))
        elif name in named:
            hooks.append(module.register_forward_pre_hook(_taking(forced, name)))
        if name in named:
            hooks.append(module.register_forward_hook(_giving(forced, name)))
    try:
        yield forced
    finally:
        for hook in hooks:
            hook.remove()


def _entering(forced: Forcing, name: str) -> Any:
    return lambda _, args: forced.enter(name, args)


def _taking(forced: Forcing, name: str) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not args[0].is_floating_point():  # token ids
            return args
        return forced.take(name, "in", args[0]), *args[1:]

    return hook


def _giving(forced: Forcing, name: str) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):  # with present keys and values
            return forced.take(name, "out", output[0], args[0]), *output[1:]
        return forced.take(name, "out", output, args[0])

    return hook


def worst_relative(found: Tensor, expected: Tensor) -> float:
    """Return the largest error of a row (rows, width), root mean squares of difference by those of
    `expected`; infinite where `found` is not finite, 0 without rows.

    Rows much smaller than most are held to what is usual: what cancels there was larger before.
    """
    if not found.numel():
        return 0.0
    if not found.isfinite().all():
        return float("inf")
    expected = expected.double()
    difference = (found.double() - expected).square().mean(1).sqrt()
    size = expected.square().mean(1).sqrt()
    usual = float(size.median())
    return float((difference / size.clamp(min=max(usual / 10, 1e-30))).max())


def _rows(value: Tensor, real: Tensor) -> Tensor:
    return value.flatten(1)[real]


def scale_of(inputs: Tensor) -> tuple[float, float]:
    """Return root mean square and largest magnitude."""
    if not inputs.is_floating_point() or not inputs.numel():
        return 0.0, 0.0
    wide = inputs.double()
    return float(wide.square().mean().sqrt()), float(wide.abs().max())
