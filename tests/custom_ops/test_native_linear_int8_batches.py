"""The native LinearInt8: several tokens give each the same bits, however many of them there are."""

from pathlib import Path

import pytest
import torch

from support.int8_inputs import int8_inputs
from support.native_levels import NativeCase, cpu_levels, needs_native, run_at_level
from support.op_models import op_model

pytestmark = needs_native

MODES = ("exact", "bf16", "int8")
SEVERAL = (6, 8, 16)  # more than what is multiplied row by row, and fewer than AMX tiles are for


@pytest.mark.parametrize("level", cpu_levels())
@pytest.mark.parametrize("mode", MODES)
def test_bits_do_not_depend_on_the_other_tokens(level: str, mode: str, tmp_path: Path) -> None:
    """Panels of few tokens are longer than those of many: the sums must not show it."""
    inputs = int8_inputs(SEVERAL[-1], 2880, 70, True)
    model = op_model("LinearInt8", inputs, {}).SerializeToString()
    config = {"gptoss.activations": mode}
    cases = [
        NativeCase(model, {**inputs, "x": inputs["x"][:tokens].contiguous()}, config)
        for tokens in SEVERAL
    ]
    *fewer, [most] = run_at_level(level, cases, tmp_path)
    for [found] in fewer:
        assert torch.equal(found, most[: len(found)])
