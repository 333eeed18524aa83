"""Errors drawn as inline SVG on a logarithmic scale: by position, and by layer.

All text in them is made of numbers, so there is nothing to escape. Colours come from the page; what
they say, a line or a mark says too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gptoss_onnx.validation.report.document import LayerError
from gptoss_onnx.validation.report.words import number

WIDTH, HEIGHT = 320.0, 124.0  # of a drawing, in its own units: those of a phone's pixels
LEFT, RIGHT, TOP, BOTTOM = 36.0, 4.0, 8.0, 18.0  # margins for the labels
MOST_BARS = 128  # of one drawing; more positions share a bar, which shows the largest of them
MOST_TICKS = 4
DECADES = (-8, -1)  # where all errors are zero
VISIBLE = 0.05  # decades that the smallest error is high, at least


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis over whole decades, upwards."""

    low: int
    high: int
    endless: bool = False  # its top is for what is not finite

    @classmethod
    def over(cls, values: Sequence[float]) -> "Axis":
        """Return the axis that holds all values."""
        decades = [math.log10(value) for value in values if 0 < value < math.inf]
        endless = not all(map(math.isfinite, values))
        if not decades:
            return cls(*DECADES, endless)
        low, high = math.floor(min(decades) - VISIBLE), math.ceil(max(decades))
        return cls(low if low < high else low - 1, high + endless, endless)

    def y(self, value: float) -> float:
        """Return where a value is: zero at the bottom, what is not finite at the top."""
        share = 1.0
        if value <= 0:
            share = 0.0
        elif math.isfinite(value):
            share = (math.log10(value) - self.low) / (self.high - self.low)
        return TOP + (1 - min(max(share, 0.0), 1.0)) * (HEIGHT - TOP - BOTTOM)

    def ticks(self) -> list[int]:
        """Return the decades to label."""
        step = max(1, math.ceil((self.high - self.low) / MOST_TICKS))
        return list(range(self.low, self.high + (not self.endless), step))


def by_position(errors: Sequence[float], positions: int, limit: float) -> str:
    """Draw the largest error in logits of each position, and the limit if there is one.

    `errors` are of all `positions`, or of as many equal runs of them.
    """
    share = math.ceil(len(errors) / MOST_BARS)
    bars = [_largest(errors[start : start + share]) for start in range(0, len(errors), share)]
    axis = Axis.over([*bars, limit] if math.isfinite(limit) else bars)
    width = _step(len(bars))
    over = [not error <= limit for error in bars]
    top = _largest(errors)
    first = next(index for index, error in enumerate(errors) if _same(error, top))
    at = first * positions // len(errors)
    marks = [
        _grid(axis),
        *_bars(axis, bars, over, width),
        _line(axis.y(limit)) if math.isfinite(limit) else "",
        _label(LEFT, HEIGHT - 5, "0", "start"),
        _label(WIDTH - RIGHT, HEIGHT - 5, str(positions - 1), "end"),
    ]
    held = f", limit {limit:g}" if math.isfinite(limit) else ""
    told = f"Largest error in logits by position: {number(top)} at position {at}{held}"
    each = math.ceil(positions / len(bars))
    shared = f"; each bar is the largest of {each} positions" if each > 1 else ""
    dashes = f"; dashes: the limit, {limit:g}" if held else ""
    return _figure(marks, told, f"Largest error in logits, by position compared{shared}{dashes}")


def by_layer(layers: Sequence[LayerError]) -> str:
    """Draw the relative error of each layer's output, and what is allowed of each."""
    axis = Axis.over([value for entry in layers for value in (entry.relative, entry.allowed)])
    errors = [entry.relative for entry in layers]
    over = [not entry.relative <= entry.allowed for entry in layers]
    width = _step(len(layers))
    allowed = "".join(
        f"M{LEFT + index * width:.1f} {axis.y(entry.allowed):.1f}h{width:.1f}"
        for index, entry in enumerate(layers)
    )
    marks = [
        _grid(axis),
        *_bars(axis, errors, over, width),
        f'<path class="allowed" d="{allowed}"/>',
        _label(LEFT, HEIGHT - 5, f"layer {layers[0].layer}", "start"),
        _label(WIDTH - RIGHT, HEIGHT - 5, f"{layers[-1].layer}", "end"),
    ]
    beyond = [str(entry.layer) for entry, high in zip(layers, over, strict=True) if high]
    told = f"Relative error of {len(layers)} layers, largest {number(_largest(errors))}; " + (
        f"beyond what is allowed: layers {', '.join(beyond)}" if beyond else "all allowed"
    )
    return _figure(marks, told, "Relative error of each layer’s output; lines: what is allowed")


def _step(count: int) -> float:
    """Return the width of a bar and its gap."""
    return (WIDTH - LEFT - RIGHT) / max(count, 1)


def _bars(axis: Axis, errors: Sequence[float], over: Sequence[bool], width: float) -> list[str]:
    """Draw a bar for each error; those that are over end in a cap as wide as their place."""
    bottom = HEIGHT - BOTTOM
    paths = {"bar": "", "bar over": "", "cap": ""}
    for index, (error, high) in enumerate(zip(errors, over, strict=True)):
        left, y = LEFT + index * width, axis.y(error)
        middle = f"M{left + width / 2:.1f} {bottom:.1f}V{min(y, bottom - 0.5):.1f}"
        paths["bar over" if high else "bar"] += middle
        if high:
            paths["cap"] += f"M{left:.1f} {y:.1f}h{width:.1f}"
    stroke = width if width < 4 else min(width * 0.7, 14.0)
    return [
        f'<path class="{kind}" d="{path}"'
        + ("/>" if kind == "cap" else f' stroke-width="{stroke:.1f}"/>')
        for kind, path in paths.items()
        if path
    ]


def _grid(axis: Axis) -> str:
    lines = "".join(
        f"M{LEFT:.0f} {axis.y(10.0**tick):.1f}H{WIDTH - RIGHT:.0f}" for tick in axis.ticks()
    )
    labels = "".join(
        _label(LEFT - 5, axis.y(10.0**tick) + 3.5, f"1e{tick}", "end") for tick in axis.ticks()
    )
    if axis.endless:
        labels += _label(LEFT - 5, TOP + 3.5, "∞", "end")
    return f'<path class="grid" d="{lines}"/>{labels}'


def _line(y: float) -> str:
    return f'<path class="limit" d="M{LEFT:.0f} {y:.1f}H{WIDTH - RIGHT:.0f}"/>'


def _label(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _figure(marks: Sequence[str], told: str, caption: str) -> str:
    size = f"0 0 {WIDTH:.0f} {HEIGHT:.0f}"
    drawing = f'<svg viewBox="{size}" role="img" aria-label="{told}">{"".join(marks)}</svg>'
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def _largest(errors: Sequence[float]) -> float:
    """Return the largest error; NaN counts as larger than all."""
    return next((error for error in errors if math.isnan(error)), max(errors))


def _same(left: float, right: float) -> bool:
    return left == right or (math.isnan(left) and math.isnan(right))
