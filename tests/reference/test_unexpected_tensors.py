"""A tensor that config.json excludes: the message names the key that does, and no other."""

from pathlib import Path

import torch

from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.checkpoints import SINGLE, edit_json, failure, rewrite

FOUND = f"bias: unexpected, found in {SINGLE}"


def test_the_key_is_the_architectures_own(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_document("gpt_oss_lab") | {"bias": True})
    edit_json(tmp_path / "c" / "config.json", lambda document: document.update(bias=False))
    assert f"{FOUND} although config.json says bias: false" in failure(tmp_path / "c")


def test_every_key_that_switches_biases_off_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_document("llama"))
    off = {"attention_bias": False, "mlp_bias": False}
    edit_json(tmp_path / "c" / "config.json", lambda document: document.update(off))
    keys = "although config.json says attention_bias: false, mlp_bias: false"
    assert f"up_proj.{FOUND} {keys}" in failure(tmp_path / "c")


def test_no_key_is_named_that_config_json_does_not_have(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "c", tiny_document("gpt2"))
    more = {"transformer.wte.bias": torch.zeros(3)}
    rewrite(tmp_path / "c", lambda tensors: tensors.update(more))
    assert failure(tmp_path / "c").endswith(f"wte.{FOUND}")
