"""What `make-checkpoint`, `export`, `inspect` and `validate` write, and what they say of it."""

import json
import os
import re
from pathlib import Path

import pytest

from gptoss_onnx.cli.make_checkpoint import SHAPE_OPTIONS
from gptoss_onnx.reference.synthetic import tiny_document
from support.command_line import done, run
from support.fake_package import write_fake_package
from support.tiny_package import clone


def test_make_checkpoint_tiny_has_the_shape_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "made"
    shape = (
        "--hidden-size",
        32,
        "--heads",
        6,
        "--kv-heads",
        3,
        "--experts",
        5,
        "--window",
        4,
        "--tied",
    )
    text = done("make-checkpoint", "tiny", out, "--layers", 3, *shape, "--layout", "hf-bf16")
    assert text.startswith(f"{out}: tiny, 3 layers, hf-bf16, 1 file of weights")
    config = json.loads((out / "config.json").read_text())
    keys = (
        "num_hidden_layers",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "num_local_experts",
    )
    assert [config[key] for key in keys] == [3, 32, 6, 3, 5]
    assert (config["sliding_window"], config["tie_word_embeddings"]) == (4, True)
    assert "quantization_config" not in config


def test_make_checkpoint_real_is_sparse_where_asked(tmp_path: Path) -> None:
    text = done("make-checkpoint", "20b", tmp_path / "big", "--layers", 1, "--sparse")
    assert "20b, 1 layer, hf-mxfp4" in text
    assert "all holes" in text
    files = list((tmp_path / "big").glob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) > 2_000_000_000
    assert sum(file.stat().st_blocks * 512 for file in files) < 10_000_000


@pytest.mark.parametrize("name", ["tiny", "tiny-gpt-oss", "tiny-gpt_oss"])
def test_make_checkpoint_takes_every_name_of_a_small_model(tmp_path: Path, name: str) -> None:
    text = done("make-checkpoint", name, tmp_path / "made", "--sparse")
    assert text.startswith(f"{tmp_path / 'made'}: {name}, 4 layers, hf-mxfp4, 1 file")


def test_shape_flags_are_keys_of_the_small_model() -> None:
    assert {key for key, _ in SHAPE_OPTIONS.values()} <= tiny_document().keys()


def test_make_checkpoint_seeds_give_other_weights(tmp_path: Path) -> None:
    def weights(seed: int) -> bytes:
        done("make-checkpoint", "tiny", tmp_path / str(seed), "--layers", 1, "--seed", seed)
        return (tmp_path / str(seed) / "model.safetensors").read_bytes()

    assert weights(1) != weights(2)


def test_export_links_and_says_what_it_did(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "package"
    text = done("export", checkpoint, "--output", output)
    assert text.splitlines()[0] == str(output)
    assert "layers   2 (1 full, 1 window 8)" in text
    assert "experts  6, 3 a token" in text
    assert "2 MoEDispatchMXFP4" in text
    assert "1 file hard-linked, no byte copied" in text
    assert (output / "model.safetensors").samefile(checkpoint / "model.safetensors")
    before = (output / "manifest.json").stat().st_ino
    text = done(
        "export",
        checkpoint,
        "--output",
        output,
        "--weights",
        "copy",
        "--kv-dtype",
        "float16",
        "--force",
    )
    assert "1 file copied" in text
    assert "lossy    kv cache in float16" in text
    assert (output / "manifest.json").stat().st_ino != before
    text = done("export", checkpoint, "--output", output, "--dense", "int8", "--force")
    assert "1 file hard-linked, no byte copied" in text
    assert "dense-int8.safetensors computed (" in text
    assert "lossy    q, k, v, o and lm_head in int8 (block 32)" in text
    text = done("inspect", output)
    assert "bit-identical to the checkpoint but for those named as lossy" in text
    assert "computed by the export): unchanged" in text
    assert os.listdir(tmp_path) == ["package"]  # noqa: PTH208 - hidden files too


def test_inspect_describes_a_package(package: Path) -> None:
    text = done("inspect", package)
    for words in (
        "num_local_experts 6",
        "1 layer (1), full: 256 bytes a token",
        "1 layer (0), window 8: a ring of 519 slots of 256 bytes",
        "float32; one sequence of up to 160 tokens takes 256 bytes a token and 132.9 kB of rings",
        "input_ids: int64 (batch, sequence)",
        "ai.gptoss.SinkAttention version 1: 2 nodes",
        "link, hf-mxfp4",
        "model.safetensors (",
        "): unchanged",
        "golden vectors: yes; parity report: no",
        "tokenizer.json, chat_template.jinja",
        "chat template: yes",
    ):
        assert words in text


def test_inspect_describes_windows_only_where_there_are_some(tmp_path: Path) -> None:
    text = done("inspect", write_fake_package(tmp_path / "full", windows=(0, 0, 0)))
    assert re.search(r"one sequence of up to 1048576 tokens takes \d+ bytes a token$", text, re.M)
    text = done("inspect", write_fake_package(tmp_path / "kept", sinks=(0, 1, 3)))
    assert "window 3 with 1 first token kept: a ring of " in text
    assert "window 8 with 3 first tokens kept: a ring of " in text


def test_inspect_json_is_the_manifest_and_what_was_computed(package: Path) -> None:
    document = json.loads(done("inspect", package, "--json"))
    computed = document.pop("computed")
    assert document == json.loads((package / "manifest.json").read_text())
    # key and value, heads, width, float32
    assert computed["cache"]["bytes_per_token"] == 2 * 2 * 16 * 4
    assert [layer["ring_slots"] for layer in computed["cache"]["layers"]] == [8 + 512 - 1, None]
    assert [entry["state"] for entry in computed["weights"]] == ["unchanged"]
    assert (computed["golden"], computed["tokenizer"], computed["chat_template"]) == (
        True,
        True,
        True,
    )


def test_inspect_tells_the_state_of_each_file(package: Path, tmp_path: Path) -> None:
    spoilt = clone(package, tmp_path / "spoilt")
    os.utime(spoilt / "model.safetensors")
    assert "): changed" in done("inspect", spoilt)
    (spoilt / "model.safetensors").unlink()
    (spoilt / "model.onnx").unlink()
    text = done("inspect", spoilt)
    assert "): missing" in text
    assert "graph model.onnx (missing)" in text


def test_validate_passes_what_was_exported_and_fails_other_weights(
    package: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = run(
        "validate",
        package,
        "--kernels",
        "native",
        "--reference",
        checkpoint,
        "--report",
        tmp_path / "report",
        "--json",
    )
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert (
        json.loads((tmp_path / "report" / "parity.json").read_text())["cells"] == document["cells"]
    )

    other = clone(checkpoint, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    begin = len(weights) // 2
    weights[begin : begin + 4096] = bytes(4096)
    (other / "model.safetensors").write_bytes(weights)
    result = run("validate", package, "--kernels", "native", "--reference", other)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "FAIL: " in result.stdout.splitlines()[-1]


def test_validate_writes_golden_vectors(package: Path, checkpoint: Path, tmp_path: Path) -> None:
    plain = clone(package, tmp_path / "plain")
    exported = (plain / "golden" / "golden.json").read_text()
    (plain / "golden" / "golden.json").unlink()
    (plain / "golden").rmdir()
    assert (
        run(
            "validate", plain, "--kernels", "native", "--reference", checkpoint, "--write-golden"
        ).exit_code
        == 0
    )
    assert (plain / "golden" / "golden.json").read_text() == exported


def test_validate_leaves_its_verdict_in_the_package(checkpoint: Path, tmp_path: Path) -> None:
    done("export", checkpoint, "--output", tmp_path / "package")
    done(
        "validate",
        "--kernels",
        "native",
        tmp_path / "package",
        "--reference",
        checkpoint,
        "--report",
        tmp_path / "report",
    )
    verdicts = [
        json.loads((tmp_path / name / "parity.json").read_text()) for name in ("package", "report")
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0]["passed"] is True
