"""Spellings of an adapter's tensors: experts one by one, and patterns of ranks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.checkpoint.fields import Fields, Problems
from gptoss_onnx.reference import open_checkpoint
from gptoss_onnx.reference.adapters.patterns import Patterns
from support.architecture_judge import Case
from support.checkpoints import edit_json
from support.peft_adapters import RANK, Base

WEIGHTS = "adapter_model.safetensors"
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def test_experts_one_by_one_are_those_of_the_stack(tmp_path: Path) -> None:
    """Unsloth's form: a pair of two axes for each expert."""
    base = Base.write("gpt_oss", {"num_hidden_layers": 1}, tmp_path / "base")
    stacked = base.adapter(tmp_path / "stacked", target_modules=[], target_parameters=EXPERTS)
    apart = tmp_path / "apart"
    shutil.copytree(stacked, apart)
    prefix = "base_model.model.model.layers.0.mlp.experts"
    tensors, split = load_file(stacked / WEIGHTS), {}
    for wrapped, name in ((".base_layer", "gate_up_projs"), ("", "down_projs")):
        a = tensors[f"{prefix}{wrapped}.lora_A.weight"]  # (E·r, I)
        b = tensors[f"{prefix}{wrapped}.lora_B.weight"]  # (O, r·E)
        for expert, (one, other) in enumerate(
            zip(a.split(RANK), b.unflatten(1, (RANK, -1)).unbind(2), strict=True)
        ):
            split[f"{prefix}.{name}.{expert}.lora_A.weight"] = one.contiguous()
            split[f"{prefix}.{name}.{expert}.lora_B.weight"] = other.contiguous()
    save_file(split, apart / WEIGHTS)
    edit_json(apart / "adapter_config.json", lambda found: found.update(target_parameters=None))
    with (
        open_checkpoint(base.folder, adapters=[stacked]) as first,
        open_checkpoint(base.folder, adapters=[apart]) as second,
    ):
        for name in first.parameters:
            assert torch.equal(first.load_parameter(name), second.load_parameter(name)), name
        changed = first.parameters["model.layers.0.mlp.experts.down_proj"]
        assert changed.computed is not None


def test_experts_as_files_name_them(tmp_path: Path) -> None:
    """Adapters of transformers 4: PEFT itself joins their experts when it loads them."""
    base = Base.write("mixtral", {"num_hidden_layers": 2}, tmp_path / "base")
    adapter = base.adapter(tmp_path / "adapter", target_modules=["q_proj"])
    tensors = load_file(adapter / WEIGHTS)
    generator = torch.Generator().manual_seed(3)
    sizes = {"w1": (64, 96), "w3": (64, 96), "w2": (96, 64)}
    for layer in range(2):
        for expert in range(8):
            for name, (inputs, outputs) in sizes.items():
                stem = f"base_model.model.model.layers.{layer}.block_sparse_moe.experts.{expert}"
                for half, shape in (("A", (RANK, inputs)), ("B", (outputs, RANK))):
                    steps = torch.randint(-8, 9, shape, generator=generator)
                    tensors[f"{stem}.{name}.lora_{half}.weight"] = steps / 32
    save_file(tensors, adapter / WEIGHTS)
    edit_json(
        adapter / "adapter_config.json",
        lambda found: found.update(target_modules=["q_proj", *sizes]),
    )
    case = Case(base.merged([adapter]))
    case.check_reference([adapter])
    case.check_package(tmp_path / "package", "portable", "auto", [adapter])


def test_one_expert_alone_changes_nothing_else(tmp_path: Path) -> None:
    base = Base.write("mixtral", {"num_hidden_layers": 1}, tmp_path / "base")
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 2}
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    stem = "base_model.model.model.layers.0.mlp.experts.5.w3"
    tensors = {
        f"{stem}.lora_A.weight": torch.ones(1, 64),
        f"{stem}.lora_B.weight": torch.ones(96, 1),
    }
    save_file(tensors, folder / WEIGHTS)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    with (
        open_checkpoint(base.folder) as plain,
        open_checkpoint(base.folder, adapters=[folder]) as adapted,
    ):
        expected = plain.load_parameter(name).float()
        expected[5, 96:] += 2  # w3 lies behind w1
        assert torch.equal(adapted.load_parameter(name), expected.bfloat16())
        begin = 5 * 192 + 90  # rows that no piece begins with
        found = adapted.load_rows(adapted.parameters[name], begin, begin + 12)
        assert torch.equal(found, expected.flatten(0, 1)[begin : begin + 12].bfloat16())


def _patterns(**found: float) -> Patterns:
    problems = Problems()
    patterns = Patterns.read(Fields({"rank_pattern": found}, problems), "rank_pattern")
    problems.check("here")
    return patterns


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ({"q_proj": 3}, 3),
        ({"self_attn.q_proj": 3, "q_proj": 5}, 3),
        ({"q_proj": 5, "self_attn.q_proj": 3}, 5),
        ({r"layers\.1[0-9]\.self_attn\.q_proj": 7, "q_proj": 5}, 7),
        ({r"^model.layers.11.self_attn.q_proj": 7, "q_proj": 5}, 7),
        ({r"(k|q)_proj": 7, "q_proj": 5}, 7),
        ({"proj": 9, r".*\.o_proj": 2}, None),
        ({}, None),
    ],
)
def test_the_first_pattern_that_fits_counts(
    patterns: dict[str, float], expected: float | None
) -> None:
    assert _patterns(**patterns).match("model.layers.11.self_attn.q_proj") == expected
