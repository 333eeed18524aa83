"""The command line does what its help says: results on stdout, everything else on stderr, exit
codes for scripts.
"""

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gptoss_onnx.cli import main
from gptoss_onnx.cli.make_checkpoint import SHAPE_OPTIONS
from gptoss_onnx.extras import install_command
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.reference.synthetic import tiny_document
from support.tiny_package import LONGEST, clone, tiny_checkpoint, tiny_package

CODE = "from gptoss_onnx.cli import main; main(prog_name='gptoss-onnx')"
HEAVY = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime", "numpy", "tokenizers")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        main, [str(argument) for argument in arguments], prog_name="gptoss-onnx"
    )


def done(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def in_process_of_its_own(
    *arguments: object, code: str = CODE, **options: Any
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, text=True, check=False, **(streams | options))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_package(tmp_path_factory)


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = f"import atexit, sys; atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules])); {CODE}"
    result = in_process_of_its_own("--help", code=code)
    assert (result.returncode, result.stderr) == (0, "")
    for command in ("export", "inspect", "generate", "validate", "bench", "make-checkpoint"):
        assert command in result.stdout
    assert result.stdout.endswith("[]\n")


def test_the_entry_point_is_the_command() -> None:
    (entry,) = metadata.entry_points(group="console_scripts", name="gptoss-onnx")
    assert entry.load() is main
    assert done("--version").split()[-1] == metadata.version("gptoss-onnx")


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "x", "--output", "y", "--experts", "packed"),
        ("make-checkpoint", "tiny", "x", "--layout", "openai"),
    ],
    ids=lambda arguments: " ".join(arguments),
)
def test_what_is_not_built_yet_is_not_accepted(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1


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


def test_generate_streams_text_and_nothing_else(package: Path) -> None:
    code = f"""
import atexit, sys
atexit.register(lambda: print([m for m in ("torch", "onnx", "onnxscript") if m in sys.modules], file=sys.stderr))
{CODE}"""
    arguments = ("generate", package, "--prompt", "Grüße", "--max-new-tokens", 12)
    result = in_process_of_its_own(*arguments, code=code, env={**os.environ, "PYTHONUTF8": "1"})
    assert (result.returncode, result.stderr) == (0, "[]\n")
    answer = json.loads(done(*arguments, "--json"))
    assert result.stdout == answer["text"] + "\n" * (not answer["text"].endswith("\n"))
    assert (len(answer["tokens"]), answer["finish_reason"]) == (12, "length")
    timings = answer["timings"]
    assert (timings["prompt_tokens"], timings["new_tokens"]) == (len("Grüße".encode()), 12)
    assert min(value for value in timings.values()) > 0
    assert (answer["kernels"], answer["activations"], answer["provider"]) == (
        "native",
        "exact",
        "cpu",
    )


def test_generate_prints_ids_without_a_tokenizer(package: Path, tmp_path: Path) -> None:
    bare = clone(package, tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    arguments = ("--prompt-tokens", "1, 2,3", "--max-new-tokens", 5)
    answer = json.loads(done("generate", bare, *arguments, "--json"))
    assert answer["text"] is None
    assert done("generate", bare, *arguments) == ",".join(map(str, answer["tokens"])) + "\n"
    assert json.loads(done("generate", package, *arguments, "--json"))["tokens"] == answer["tokens"]


def test_generate_chat_applies_the_template(package: Path) -> None:
    chat = ("--prompt", "hi", "--chat", "--system", "be brief")
    rendered = ("--prompt", "[system]be brief[user]hi[assistant]")
    more = ("--max-new-tokens", 6, "--json")
    answers = [
        json.loads(done("generate", package, *prompt, *more))["tokens"]
        for prompt in (chat, rendered)
    ]
    assert answers[0] == answers[1]


def test_generate_samples_reproducibly(package: Path) -> None:
    def tokens(seed: int) -> list[int]:
        sampling = (
            "--temperature",
            1.5,
            "--top-k",
            50,
            "--top-p",
            0.9,
            "--min-p",
            0.01,
            "--repetition-penalty",
            1.1,
        )
        text = done(
            "generate",
            package,
            "--prompt",
            "x",
            "--max-new-tokens",
            8,
            *sampling,
            "--seed",
            seed,
            "--json",
        )
        found: list[int] = json.loads(text)["tokens"]
        return found

    assert tokens(1) == tokens(1) != tokens(2)


def test_generate_stops_before_a_stop_text(package: Path) -> None:
    arguments = (
        "generate",
        package,
        "--prompt",
        "x",
        "-n",
        128,
        "--temperature",
        2,
        "--seed",
        3,
        "--json",
    )
    text = json.loads(done(*arguments))["text"]
    stop = next(letter for letter in text[2:] if letter not in text[:2] and letter != "\ufffd")
    answer = json.loads(done(*arguments, "--stop", stop, "--stop", "never said"))
    assert (answer["text"], answer["finish_reason"]) == (text[: text.index(stop)], "stop")


def test_generate_ends_where_the_model_does(package: Path) -> None:
    ids = ",".join(["7"] * (LONGEST - 2))
    answer = json.loads(
        done("generate", package, "--prompt-tokens", ids, "--max-new-tokens", 99, "--json")
    )
    # the last one has not been run
    assert (len(answer["tokens"]), answer["finish_reason"]) == (3, "length")


def test_generate_tells_timings_where_asked(package: Path) -> None:
    result = run("generate", package, "--prompt", "x", "--max-new-tokens", 2, "--verbose")
    assert "native kernels" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("finished: length; loaded in ")
    assert "tokens/s" in result.stderr
    assert "tokens/s" not in result.stdout


def test_validate_passes_what_was_exported_and_fails_other_weights(
    package: Path, checkpoint: Path, tmp_path: Path
) -> None:
    result = run(
        "validate", package, "--reference", checkpoint, "--report", tmp_path / "report", "--json"
    )
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["passed"] is True
    assert (
        json.loads((tmp_path / "report" / "parity.json").read_text())["cases"] == document["cases"]
    )

    other = clone(checkpoint, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    begin = len(weights) // 2
    weights[begin : begin + 4096] = bytes(4096)
    (other / "model.safetensors").write_bytes(weights)
    result = run("validate", package, "--reference", other)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "FAIL: " in result.stdout.splitlines()[-1]


def test_validate_writes_golden_vectors(package: Path, checkpoint: Path, tmp_path: Path) -> None:
    plain = clone(package, tmp_path / "plain")
    exported = (plain / "golden" / "golden.json").read_text()
    (plain / "golden" / "golden.json").unlink()
    (plain / "golden").rmdir()
    assert run("validate", plain, "--reference", checkpoint, "--write-golden").exit_code == 0
    assert (plain / "golden" / "golden.json").read_text() == exported


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException, *flags: str) -> Result:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(main.commands["make-checkpoint"], "callback", lambda **_: fail())
    return run("make-checkpoint", "tiny", "unused", *flags)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 2, "error: out of memory: free some, or ask for less"),
        (
            OSError(28, "No space left on device", "there"),
            2,
            "error: there: No space left on device; free some space",
        ),
        (
            PermissionError(13, "Permission denied", "x"),
            2,
            "error: x: Permission denied; check its permissions",
        ),
        (ZeroDivisionError("of ours"), 2, "error: unexpected ZeroDivisionError: of ours (a bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    result = _failing(monkeypatch, error)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.strip().startswith(line)
    assert len(result.stderr.strip().splitlines()) == 1
    result = _failing(monkeypatch, error, "--verbose")
    assert result.exit_code == code
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(line)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in [name for name in sys.modules if name.startswith("gptoss_onnx.exporter")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    result = run("export", tmp_path, "--output", tmp_path / "x")
    assert result.exit_code == 2
    command = install_command("export")  # as it works where this copy of the project lies
    assert result.stderr == f"error: onnx_ir is not installed: this command needs {command}\n"


def test_a_reader_that_goes_away_is_no_error(package: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    result = in_process_of_its_own("inspect", package, stdout=write)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_below_stdout_is_an_error(package: Path) -> None:
    with Path("/dev/full").open("w") as full:
        result = in_process_of_its_own("inspect", package, stdout=full)
    assert result.returncode == 2
    assert (
        result.stderr == "error: No space left on device; free some space or choose another disk\n"
    )


def test_inspect_needs_neither_torch_nor_onnxruntime(package: Path) -> None:
    heavy = ("torch", "onnx", "onnxscript", "onnxruntime", "transformers")
    code = f"""
import atexit, sys
atexit.register(lambda: print([m for m in {heavy} if m in sys.modules], file=sys.stderr))
{CODE}"""
    result = in_process_of_its_own("inspect", package, code=code)
    assert (result.returncode, result.stderr) == (0, "[]\n")
    assert Manifest.read(package).graph in result.stdout


def test_sigterm_removes_what_an_export_had_begun(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        CODE,
        "export",
        str(checkpoint),
        "--output",
        str(tmp_path / "package"),
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        # the staging folder is there, with the first file
        while not list(tmp_path.glob(".*/*.safetensors")):
            time.sleep(0.02)
        process.terminate()
        assert process.wait() == 143
    assert not list(tmp_path.iterdir())


def test_validate_leaves_its_verdict_in_the_package(checkpoint: Path, tmp_path: Path) -> None:
    done("export", checkpoint, "--output", tmp_path / "package")
    done(
        "validate", tmp_path / "package", "--reference", checkpoint, "--report", tmp_path / "report"
    )
    verdicts = [
        json.loads((tmp_path / name / "parity.json").read_text()) for name in ("package", "report")
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[0]["passed"] is True


def test_the_bare_command_shows_the_help() -> None:
    assert done() == done("--help")
    assert "make-checkpoint" in done()


def test_export_groups_its_options_and_says_which_go_together() -> None:
    text = done("export", "--help")
    headings = [
        "The package:",
        "What the graph is made for:",
        "What becomes of the weights:",
        "A checkpoint of the",
    ]
    places = [
        text.index(heading)
        for heading in (*headings, "Other options:", "Which options go together:")
    ]
    assert places == sorted(places)
    for option in main.get_command(click.Context(main), "export").params:
        if isinstance(option, click.Option):
            assert text.count(f"\n  {option.opts[0]} ") == 1 or option.name in (
                "target",
                "weights",
                "help",
                "verbose",
            )
    assert "--target ort --provider cuda" in text[places[-1] :]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_what_the_help_says(shell: str) -> None:
    variable = f"_GPTOSS_ONNX_COMPLETE={shell}_source"
    assert variable in done("--help")
    name, value = variable.split("=")
    result = in_process_of_its_own(env={**os.environ, name: value})
    assert result.returncode == 0, result.stderr
    assert "gptoss-onnx" in result.stdout
    words = {"COMP_WORDS": "gptoss-onnx ex", "COMP_CWORD": "1", name: "bash_complete"}
    assert "export" in in_process_of_its_own(env={**os.environ, **words}).stdout
