"""Compares what SinkAttention returned with its PyTorch definition in float64.

Legend: B batch, S new tokens, C cache capacity, H query heads, K kv heads, D head dim.
"""

import numpy as np
import torch

from fuzz.case import Case
from fuzz.tensors import OVERFLOWS, UNDERFLOW, torch_inputs, torch_outputs

# its definition: no second copy of the formula
from gptoss_onnx.custom_ops.cache_slots import slots_of
from gptoss_onnx.custom_ops.sink_attention import rotate
from support.tolerances import NATIVE_ATTENTION, NATIVE_ATTENTION_BF16_PRODUCTS


class AttentionExpectation:
    """What a call should return; `check` raises AssertionError."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._inputs = torch_inputs(case)
        self._wide = {
            name: tensor.double() if tensor is not None and tensor.is_floating_point() else tensor
            for name, tensor in self._inputs.items()
        }
        past, (batch, columns, _) = self._inputs["past_key"], self._inputs["query"].shape
        self._type = past.dtype
        self._empty = batch == 0 or columns == 0
        # (B, C): slots that nobody writes
        self._kept = torch.ones(batch, past.shape[2], dtype=torch.bool)
        if self._empty:  # S may be any number where B is 0
            return
        self._new = torch.arange(columns) < self._inputs["new_lengths"].unsqueeze(1)  # (B, S)
        positions = self._inputs["past_lengths"].unsqueeze(1) + torch.arange(columns)
        kept = int(case.attributes["sink_tokens"])
        self._slots = slots_of(positions, past.shape[2], kept)  # (B, S)
        rows = torch.arange(batch).unsqueeze(1).expand_as(self._slots)
        self._kept[rows[self._new], self._slots[self._new]] = False

    def check(self, arrays: list[np.ndarray]) -> None:
        """Compare one level's outputs."""
        output, *present = torch_outputs(self._case, arrays)
        # NaN equals NaN as bits
        bits_type = torch.int32 if self._type == torch.float32 else torch.int16
        for name, found in zip(("past_key", "past_value"), present, strict=True):
            bits, past = (
                x.view(bits_type).transpose(1, 2)[self._kept] for x in (found, self._inputs[name])
            )
            assert torch.equal(bits, past), f"{name}: a slot of no new token has changed"
        if not self._empty:
            assert (output[~self._new] == 0).all(), "padding is not zero"
            self._check_written(*present)
            self._check_output(output.double(), *present)

    def _split(self, name: str) -> torch.Tensor:
        """Return an input (B, S, n·D) as (B, n, S, D) in float64."""
        head_dim = self._inputs["past_key"].shape[3]
        return self._wide[name].unflatten(2, (-1, head_dim)).transpose(1, 2)

    def _stored(self, present: torch.Tensor) -> torch.Tensor:
        """Return what a cache holds for each of the call's tokens, padding included: (B, K, S,
        D).
        """
        index = self._slots[:, None, :, None].expand(-1, present.shape[1], -1, present.shape[3])
        return present.gather(2, index).double()

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate heads (B, n, S, D) by the angles of the case."""
        cos, sin = self._wide["cos"], self._wide["sin"]
        return rotate(x, cos, sin, int(self._case.attributes["interleaved"]))

    def _most(self, x: torch.Tensor) -> torch.Tensor:
        """Return what each rotated number could be at most in size, had no sum cancelled."""
        if (cos := self._wide["cos"]) is None:
            return x.abs()
        sin, interleaved = self._wide["sin"], int(self._case.attributes["interleaved"])
        sizes = (rotate(x.abs(), cos.abs(), sign * sin.abs(), interleaved) for sign in (-1, 1))
        return torch.maximum(*sizes)

    def _check_written(self, present_key: torch.Tensor, present_value: torch.Tensor) -> None:
        key, value = self._split("key"), self._split("value")
        pairs = (
            (present_key, self._rotate(key), self._most(key)),
            (present_value, value, value.abs()),
        )
        for present, source, size in pairs:
            stored, new = self._stored(present), self._new[:, None, :, None].expand_as(source)
            info = torch.finfo(self._type)
            close = (stored - source).abs() <= info.eps * size + info.smallest_normal
            wanted = source.to(self._type).double()
            same = (stored == wanted) | (stored.isnan() & wanted.isnan())
            assert (close | same | (size > min(info.max, OVERFLOWS) / 2))[new].all(), (
                "a written key or value is wrong"
            )

    def _check_output(self, output: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        expected, found = self._split_output(self._attend(key, value)), self._split_output(output)
        group = found.shape[1] // key.shape[1]
        reach = self._reach()  # (B, S)
        longest = key.double().norm(dim=-1).amax(-1).repeat_interleave(group, dim=1)  # (B, H)
        # (B, H, S)
        scores = self._split("query").norm(dim=-1) * reach.unsqueeze(1) * longest.unsqueeze(2)
        scores = scores * abs(self._case.attributes["scale"]) * key.shape[3] ** -0.5
        scores = scores + self._biases(found.shape[1]).unsqueeze(1)
        largest = value.double().abs().amax((2, 3)).repeat_interleave(group, dim=1)  # (B, H)
        bf16 = self._case.mode != "exact" and self._type == torch.bfloat16
        tolerance = NATIVE_ATTENTION_BF16_PRODUCTS if bf16 else NATIVE_ATTENTION
        bound = (tolerance * (1 + scores) * largest.unsqueeze(2) + UNDERFLOW).unsqueeze(3)
        comparable = (
            expected.isfinite() & (bound < OVERFLOWS * tolerance) & self._new[:, None, :, None]
        )
        apart = (found - expected).abs()
        wrong = comparable & ~(apart <= bound)
        assert not wrong.any(), (
            f"{int(wrong.sum())} outputs differ by up to {float(apart[wrong].max())}"
        )
        lost = self._split("query").isnan().any(-1) & self._new[:, None] & found.isfinite().any(-1)
        assert not lost.any(), "a NaN in a query got lost"

    def _reach(self) -> torch.Tensor:
        """Return the largest factor of a token's angles, for queries' second ones too, (B, S)."""
        names = ("cos", "sin", "sink_cos", "sink_sin")
        angles = [x for name in names if (x := self._wide[name]) is not None]
        whole = torch.ones(*self._inputs["query"].shape[:2], 1, dtype=torch.float64)
        return torch.cat((*angles, whole), dim=-1).abs().amax(-1)

    def _biases(self, heads: int) -> torch.Tensor:
        """Return the size of the largest bias by distance that a head can have, (H)."""
        size = torch.zeros(heads, dtype=torch.float64)
        if (slopes := self._wide["alibi_slopes"]) is not None:
            size = size + slopes.abs() * self._inputs["past_key"].shape[2]
        if (table := self._wide["distance_bias"]) is not None:
            size = size + table.abs().amax(1)
        return size + abs(self._case.attributes["sink_bias"])

    def _split_output(self, output: torch.Tensor) -> torch.Tensor:
        # (B, H, S, D)
        return output.unflatten(2, (self._case.attributes["num_heads"], -1)).transpose(1, 2)

    def _rotated_back(self, x: torch.Tensor) -> torch.Tensor:
        """Undo `_rotate`; angles' factors need not be of length one."""
        if (cos := self._wide["cos"]) is None:
            return x
        sin, interleaved = self._wide["sin"], int(self._case.attributes["interleaved"])
        length = (cos.square() + sin.square()).unsqueeze(1)  # (B, 1, S, R/2)
        length = length.repeat_interleave(2, -1) if interleaved else torch.cat((length, length), -1)
        back = rotate(x, cos, -sin, interleaved)
        rest = torch.ones_like(x[..., length.shape[3] :])
        return back / torch.cat((length.expand(*x.shape[:3], -1), rest), dim=-1)

    def _attend(self, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the definition's output over the cache that the kernel wrote.

        The definition writes first. Given keys that are rotated back, exactly up to float64, it
        writes what is there.
        """
        unrotated = self._rotated_back(self._stored(key))
        tensors = {
            **self._wide,
            "key": unrotated.transpose(1, 2).flatten(2),
            "value": self._stored(value).transpose(1, 2).flatten(2),
            "past_key": key.double(),
            "past_value": value.double(),
        }
        output: torch.Tensor = torch.ops.gptoss.sink_attention(
            *tensors.values(), *self._case.attributes.values()
        )[0]
        return output
