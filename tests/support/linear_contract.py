"""What every op that is a Linear on weights of its own keeps: LinearInt8 and LinearPacked.

Legend: N tokens, K input width, M output width.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
import onnxruntime
import torch

from support.native_levels import NativeCase, native_session, run_at_level
from support.op_models import op_model, run_ort

Inputs = dict[str, torch.Tensor | None]
MODES = ("exact", "bf16", "int8")


@dataclass(frozen=True)
class LinearContract:
    """One op, and how its outputs are judged."""

    op: str
    # (N, K, M, with bias, seed) to operands, x among them
    draw: Callable[[int, int, int, bool, int], Inputs]
    weights: tuple[str, ...]  # the operands that are the weight
    unit: int  # what K is a multiple of
    # raises where outputs (N, M) are not the definition of the inputs in a mode
    judge: Callable[[torch.Tensor, Inputs, str], None]

    def model(self, inputs: Inputs) -> bytes:
        """Return a model of the op with operands of these dtypes."""
        return op_model(self.op, inputs, {}).SerializeToString()

    def case(self, inputs: Inputs, mode: str = "exact") -> NativeCase:
        """Return the op on these operands in a mode."""
        return NativeCase(self.model(inputs), inputs, {"gptoss.activations": mode})

    def check_shape(
        self, tokens: int, blocks: int, rows: int, with_bias: bool, mode: str, seed: int
    ) -> None:
        """Judge one shape at the level in use; K is `blocks` units."""
        inputs = self.draw(tokens, self.unit * blocks, rows, with_bias, seed)
        session = _session(self, with_bias, mode)
        self.judge(run_ort(session, inputs)[0], inputs, mode)

    def check_level(self, level: str, drawn: Sequence[tuple[Inputs, str]], folder: Path) -> None:
        """Judge operands in their modes at a level."""
        cases = [self.case(inputs, mode) for inputs, mode in drawn]
        for (inputs, mode), [found] in zip(drawn, run_at_level(level, cases, folder), strict=True):
            self.judge(found, inputs, mode)

    def check_shapes(
        self, level: str, shapes: Iterable[tuple[int, int, int]], folder: Path
    ) -> None:
        """Judge shapes (N, K, M) with and without bias in every mode at a level."""
        drawn = [
            (self.draw(*shape, with_bias, number), mode)
            for number, shape in enumerate(shapes)
            for with_bias in (False, True)
            for mode in MODES
        ]
        self.check_level(level, drawn, folder)

    def check_addresses(
        self, level: str, drawn: Sequence[tuple[Inputs, int]], folder: Path
    ) -> None:
        """Judge weights that lie so many bytes into a file of their own."""
        cases = []
        for number, (inputs, offset) in enumerate(drawn):
            place = folder / str(number)
            place.mkdir()
            path = self._with_external_weight(inputs, offset, place)
            cases.append(NativeCase(path, {**inputs, **dict.fromkeys(self.weights)}))
        for (inputs, _), [found] in zip(drawn, run_at_level(level, cases, folder), strict=True):
            self.judge(found, inputs, "exact")

    def check_not_finite(self, level: str, drawn: Sequence[Inputs], folder: Path) -> None:
        """Check that NaN and infinities of tokens 1 to 3, in column 52, reach all of their own
        outputs and no others.
        """
        cases = []
        for inputs in drawn:
            for token, value in ((1, torch.nan), (2, torch.inf), (3, -torch.inf)):
                inputs["x"][token, 52] = value
            cases += [self.case(inputs, mode) for mode in MODES]
        for [found] in run_at_level(level, cases, folder):
            special = torch.zeros_like(found, dtype=torch.bool)
            special[1:4] = True
            assert torch.equal(~found.isfinite(), special)

    def check_counts(
        self, level: str, inputs: Inputs, counts: Sequence[int], mode: str, folder: Path
    ) -> None:
        """Check that a token has the same bits, however many of the first ones are given."""
        cases = [
            self.case({**inputs, "x": inputs["x"][:count].contiguous()}, mode) for count in counts
        ]
        *fewer, most = (found for [found] in run_at_level(level, cases, folder))
        for found in fewer:
            assert torch.equal(found, most[: len(found)])

    def check_threads(self, tokens: int) -> None:
        """Check that two threads compute the bits that one does."""
        inputs = self.draw(tokens, 512, 700, True, 0)
        one, two = (
            run_ort(native_session(self.model(inputs), threads=threads), inputs)[0]
            for threads in (1, 2)
        )
        assert torch.equal(one, two)

    def _with_external_weight(self, inputs: Inputs, offset: int, folder: Path) -> str:
        model = op_model(self.op, inputs, {})
        content = bytes(offset)
        for name in self.weights:
            [value] = [value for value in model.graph.input if value.name == name]
            model.graph.input.remove(value)
            data = inputs[name].contiguous().view(torch.uint8).numpy().tobytes()
            initializer = model.graph.initializer.add(
                name=name,
                data_type=value.type.tensor_type.elem_type,
                dims=inputs[name].shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            place = {
                "location": "weight.bin",
                "offset": str(len(content)),
                "length": str(len(data)),
            }
            for key, entry in place.items():
                initializer.external_data.add(key=key, value=entry)
            content += data
        (folder / "weight.bin").write_bytes(content)
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        return str(path)


@cache
def _session(contract: LinearContract, with_bias: bool, mode: str) -> onnxruntime.InferenceSession:
    model = contract.model(contract.draw(1, contract.unit, 1, with_bias, 0))
    return native_session(model, {"gptoss.activations": mode})
