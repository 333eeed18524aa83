"""Adapters that are none, are broken, or are of another base: one line each, and nothing is left
behind.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.exporter import export
from gptoss_onnx.reference import open_checkpoint
from support.checkpoints import edit_json
from support.peft_adapters import Base

SETTINGS, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Q = "base_model.model.model.layers.0.self_attn.q_proj"
EXPERTS = "base_model.model.model.layers.0.mlp.experts"
Spoil = Callable[[Path], object]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gpt-oss in `base`, an adapter of attention and experts in `adapter`."""
    root = tmp_path_factory.mktemp("adapters")
    base = Base.write("gpt_oss", {"num_hidden_layers": 2}, root / "base")
    names = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    base.adapter(root / "adapter", target_modules=["q_proj"], target_parameters=names)
    return root


def setting(key: str, value: Any) -> Spoil:
    return lambda folder: edit_json(folder / SETTINGS, lambda found: found.update({key: value}))


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        found = {name: value.clone() for name, value in load_file(folder / WEIGHTS).items()}
        change(found)
        save_file(found, folder / WEIGHTS)

    return spoil


def holds(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> Spoil:
    return tensors(lambda found: found.update({name: torch.ones(shape, dtype=dtype)}))


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def out_of_the_folder(folder: Path) -> None:
    shutil.move(folder / WEIGHTS, folder.parent / "elsewhere.safetensors")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere.safetensors")


BROKEN: dict[str, tuple[Spoil, str]] = {
    "another rank in the settings": (
        setting("r", 8),
        f"{Q}.lora_A.weight: found shape (4, 64), expected (8, 64) (rank 8 as adapter_config.json",
    ),
    "another rank of one tensor": (
        holds(f"{Q}.lora_B.weight", 128, 3),
        f"{Q}.lora_B.weight: found shape (128, 3), expected (128, 4)",
    ),
    "another base": (
        holds(f"{Q}.lora_A.weight", 4, 96),
        f"{Q}.lora_A.weight: found shape (4, 96), expected (4, 64) (rank 4 as adapter_config.json "
        "says, sizes of the base model)",
    ),
    "half of a pair": (
        tensors(lambda found: found.pop(f"{Q}.lora_B.weight")),
        "layers.0.self_attn.q_proj: lora_B is missing, expected (128, 4)",
    ),
    "a layer too many": (
        holds(f"{Q.replace('.0.', '.7.')}.lora_A.weight", 4, 64),
        "layers.7.self_attn.q_proj.lora_A.weight: found in the adapter, expected a projection of",
    ),
    "experts that no setting names": (
        setting("target_parameters", None),
        f"{EXPERTS}.base_layer.lora_A.weight: found in the adapter, expected a projection of",
    ),
    "experts of which one setting is gone": (
        setting("target_parameters", ["mlp.experts.down_proj"]),
        f"{EXPERTS}.base_layer.lora_A.weight: found in the adapter, expected a projection of",
    ),
    "other experts than the settings say": (
        setting("target_parameters", ["mlp.experts.down_proj", "mlp.experts.down_proj_bias"]),
        f"{EXPERTS}.lora_A.weight: found in the adapter, expected a projection of the base",
    ),
    "one expert of another number": (
        holds(f"{EXPERTS}.gate_up_projs.6.lora_A.weight", 4, 64),
        f"{EXPERTS}.gate_up_projs.6.lora_A.weight: found in the adapter, expected a projection of",
    ),
    "a bias without a place": (
        holds(f"{EXPERTS}.lora_B.bias", 64),
        f"{EXPERTS}.lora_B.bias: found a bias, expected none",
    ),
    "a tensor of no use": (
        holds("base_model.model.model.norms.weight", 64),
        "base_model.model.model.norms.weight: found in the adapter, expected a parameter of the",
    ),
    "more tokens than the base": (
        holds("base_model.model.lm_head.weight", 330, 64),
        "base_model.model.lm_head.weight: found shape (330, 64), expected (320, 64)",
    ),
    "integers": (
        holds(f"{Q}.lora_A.weight", 4, 64, dtype=torch.uint8),
        f"{Q}.lora_A.weight: found dtype U8, expected BF16 or F16 or F32",
    ),
    "what was not gathered": (
        holds(f"{Q}.lora_A.weight", 0, 64),
        f"{Q}.lora_A.weight: found shape (0, 64), expected some elements",
    ),
    "a number that is none": (
        tensors(lambda found: found[f"{Q}.lora_A.weight"][1, 2:3].fill_(torch.nan)),
        f"{Q}.lora_A.weight[1, 2] in ",
    ),
    "cut off": (cut, "cut off"),
    "no settings": (lambda folder: (folder / SETTINGS).unlink(), "no adapter_config.json"),
    "settings that are none": (
        lambda folder: (folder / SETTINGS).write_text("[1]"),
        "adapter_config.json: expected a JSON object",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), f"no {WEIGHTS}"),
    "a pickle": (as_pickle, "which is not read (it can run code), expected adapter_model.safe"),
    "a link out": (out_of_the_folder, "a link to "),
    "IA3": (setting("peft_type", "IA3"), "peft_type: found 'IA3', expected 'LORA': only LoRA"),
    "LoHa": (setting("peft_type", "LOHA"), "peft_type: found 'LOHA', expected 'LORA'"),
    "prefix tuning": (setting("peft_type", "PREFIX_TUNING"), "found 'PREFIX_TUNING'"),
    "no type": (setting("peft_type", None), "peft_type: found null, expected 'LORA'"),
    "DoRA without lengths": (
        setting("use_dora", True),
        "q_proj: lora_magnitude is missing, expected (128,)",
    ),
    "lengths without DoRA": (
        holds(f"{Q}.lora_magnitude_vector", 128),
        f"{Q}.lora_magnitude_vector: found, expected none, as use_dora is not true",
    ),
    "PiSSA": (
        setting("init_lora_weights", "pissa_niter_4"),
        "init_lora_weights: found 'pissa_niter_4', which changes the base weights",
    ),
    "aLoRA": (setting("alora_invocation_tokens", [1, 2]), "alora_invocation_tokens: found aLoRA"),
    "trained tokens": (setting("trainable_token_indices", [3]), "trainable_token_indices: found"),
    "repeated layers": (setting("layer_replication", [[0, 2], [1, 2]]), "layer_replication: found"),
    "a setting of the future": (
        setting("use_newlora", True),
        "use_newlora: found True, a setting that is not known here",
    ),
    "a rank that is none": (setting("r", 0), "r: found 0, expected an integer of at least 1"),
    "a scale that is none": (
        setting("lora_alpha", "8"),
        "lora_alpha: found '8', expected a finite",
    ),
    "endless patterns": (
        setting("rank_pattern", {"(a+)+b": 4}),
        "rank_pattern: found the pattern '(a+)+b', expected a name",
    ),
    "patterns that are none": (
        setting("alpha_pattern", [1]),
        "alpha_pattern: found [1], expected an object of at most",
    ),
}


@pytest.mark.parametrize(("spoil", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_is_said_in_one_line_and_leaves_nothing(
    root: Path, tmp_path: Path, spoil: Spoil, words: str
) -> None:
    shutil.copytree(root / "adapter", tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    with pytest.raises(CheckpointError) as caught:
        export(root / "base", tmp_path / "out" / "package", adapters=[tmp_path / "adapter"])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 4000
    assert not list((tmp_path / "out").iterdir())


def test_all_that_is_wrong_is_said_at_once(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "adapter", tmp_path / "adapter")
    setting("r", 5)(tmp_path / "adapter")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(root / "base", adapters=[tmp_path / "adapter"])
    assert str(caught.value).count("expected (") == 12


def test_an_adapter_that_changes_meanwhile_is_noticed(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "adapter", tmp_path / "adapter")
    with open_checkpoint(root / "base", adapters=[tmp_path / "adapter"]) as checkpoint:
        setting("r", 5)(tmp_path / "adapter")
        with pytest.raises(CheckpointError, match=r"adapter_config\.json: (was|became)"):
            checkpoint.check_unchanged()


def test_an_adapter_is_no_checkpoint_and_a_checkpoint_no_adapter(root: Path) -> None:
    with pytest.raises(CheckpointError, match="with --adapter and this folder"):
        open_checkpoint(root / "adapter")
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json"):
        open_checkpoint(root / "base", adapters=[root / "base"])
