"""What the C++ client refuses: one line on stderr, nothing on stdout, exit code 2."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from gptoss_onnx.exporter import Package, export
from support.cpp_client import Client, run

pytestmark = [pytest.mark.cpp, pytest.mark.clients]


def refused(client: Client, *words: str | Path, env: dict[str, str] | None = None) -> str:
    """Return the line that a refused run prints."""
    result = client.run(*words, env=env)
    assert (result.code, result.out) == (2, ""), result
    assert result.err.startswith("gptoss-generate: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    return result.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--prompt-tokens", ""], 'found "", expected an integer'),
        (["--prompt-tokens", "1,,2"], 'found "", expected an integer'),
        (["--prompt-tokens", "1,two"], 'found "two", expected an integer'),
        (["--prompt-tokens", "1,2048"], "found token 2048, expected 0 to 2047"),
        (["--prompt-tokens", "-1"], "found token -1, expected 0 to 2047"),
        (["--prompt-tokens", ",".join(["1"] * 1025)], "found 1025 tokens, expected at most 1024"),
        (["--prompt-tokens", "1,2,3", "--capacity", "2"], "found 3 tokens, expected at most 2"),
        (
            ["--prompt-tokens", "1", "--capacity", "1025"],
            "capacity: found 1025, expected 1 to 1024",
        ),
        (["--prompt-tokens", "1", "--capacity", "0"], "expected at most 0"),
        (
            ["--prompt-tokens", "1", "--max-new-tokens", "0"],
            "max_new_tokens: found 0, expected at least 1",
        ),
        (["--prompt-tokens", "1", "--max-new-tokens", "1.5"], 'found "1.5", expected an integer'),
        (["--prompt-tokens", "1", "--temperature", "-1"], "temperature: found -1"),
        (["--prompt-tokens", "1", "--temperature", "nan"], "temperature: found nan"),
        (["--prompt-tokens", "1", "--top-k", "-1"], "top_k: found -1"),
        (["--prompt-tokens", "1", "--top-p", "0"], "top_p: found 0"),
        (["--prompt-tokens", "1", "--min-p", "1.1"], "min_p: found 1.1"),
        (["--prompt-tokens", "1", "--repetition-penalty", "0"], "repetition_penalty: found 0"),
        (["--prompt-tokens", "1", "--seed", "-3"], 'found "-3", expected an integer'),
        (["--prompt-tokens", "1", "--threads", "100000"], "threads: found 100000, expected 1 to"),
        (["--prompt-tokens", "1", "--threads", "-1"], "threads: found -1, expected 1 to"),
        (
            ["--prompt-tokens", "1", "--stop-token", "2048"],
            "--stop-token: found token 2048, expected 0 to 2047",
        ),
        (
            ["--prompt-tokens", "1", "--stop-token", "-1"],
            "--stop-token: found token -1, expected 0 to 2047",
        ),
        (["--prompt-tokens", "1", "--temperature", "1e400"], 'found "1e400", expected a number'),
        (
            ["--prompt-tokens", "1", "--max-new-tokens", "9223372036854775807", "--top-k", "-1"],
            "top_k: found -1",
        ),
        (
            ["--prompt-tokens", "1", "\033[2Jother"],
            "arguments: found \\x1b[2Jother, expected one package",
        ),
        (
            ["--prompt-tokens", "1", "--kernels", "best"],
            "found best, expected auto, native or portable",
        ),
        (
            ["--prompt-tokens", "1", "--activations", "int4"],
            "found int4, expected exact, bf16 or int8",
        ),
        (
            ["--prompt-tokens", "1", "--kernels", "portable", "--activations", "int8"],
            "found portable kernels",
        ),
        (["--prompt-tokens", "1", "--temprature", "1"], "found --temprature"),
        (["--prompt-tokens", "1", "other"], "found other, expected one package"),
        (["--prompt-tokens"], "found nothing after it"),
        ([], "--verify, --prompt-tokens: found none, expected one"),
        (["--verify", "--prompt-tokens", "1"], "found both, expected one"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)
def test_wrong_arguments(
    client: Client, demo_package: Package, words: list[str], line: str
) -> None:
    assert line in refused(client, demo_package.folder, *words)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"format": "other"}, "format: found other, expected gptoss-onnx"),
        ({"format_version": 3}, "format_version: found 3, expected 1 to 2"),
        ({"format_version": "1"}, "format_version: found a string, expected an integer"),
        ({"target": "tpu"}, "target: found tpu"),
        ({"kv_dtype": "float8"}, "kv_dtype: found float8"),
        ({"vocab_size": None}, "vocab_size: found null, expected an integer"),
        ({"graph": "none.onnx"}, "none.onnx"),
    ],
    ids=str,
)
def test_a_manifest_it_does_not_know(
    client: Client, spoilt: Path, changes: dict[str, Any], line: str
) -> None:
    path = spoilt / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert line in refused(client, spoilt, "--verify")


def test_no_package_there(client: Client, tmp_path: Path) -> None:
    assert "found no manifest.json in it" in refused(client, tmp_path, "--verify")
    (tmp_path / "manifest.json").write_text('{"format": ')
    assert "not JSON: byte 11: found the end, expected a value" in refused(
        client, tmp_path, "--verify"
    )


def test_a_package_without_golden_vectors(client: Client, spoilt: Path) -> None:
    (spoilt / "golden" / "golden.json").unlink()
    assert "golden.json: found no such file, expected" in refused(client, spoilt, "--verify")


def test_weights_of_another_size_or_time(
    client: Client, demo_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(demo_checkpoint, tmp_path / "checkpoint"))
    package = export(checkpoint, tmp_path / "package", weights="link").folder
    assert client.run(package, "--verify").code == 0
    os.utime(checkpoint / "model.safetensors", ns=(0, 1))
    assert "found modification time 1 ns, expected" in refused(client, package, "--verify")
    with (package / "model.safetensors").open("ab") as file:
        file.write(b"x")
    assert "bytes, expected" in refused(client, package, "--verify")


def test_a_library_that_is_none_or_lacks_a_kernel(
    client: Client, demo_package: Package, tmp_path: Path
) -> None:
    words = (demo_package.folder, "--prompt-tokens", "1", "--kernels", "native", "--library")
    source, library = tmp_path / "empty.c", tmp_path / "libempty.so"
    source.write_text('const char* gptoss_ops_kernels(void) { return "Linear,SinkAttention"; }\n')
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    for path, line in (
        (source, "invalid ELF header"),
        (library, "has no kernel for MoEDispatchMXFP4"),
    ):
        result = run(client.program, *words, path)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert line in result.err
    words = (demo_package.folder, "--prompt-tokens", "1", "--max-new-tokens", "1", "--library")
    auto = run(client.program, *words, library)
    assert auto.code == 0
    assert auto.err.startswith(
        f"portable kernels ({library} has no kernel for MoEDispatchMXFP4), exact"
    )


def test_a_runtime_older_than_the_headers(
    client: Client, demo_package: Package, tmp_path: Path
) -> None:
    source = tmp_path / "old.c"
    source.write_text(
        "static const void* api(unsigned version) { return version > 20 ? 0 : &api; }\n"
        'static const char* name(void) { return "1.20.0"; }\n'
        "typedef struct { const void* (*api)(unsigned); const char* (*name)(void); } Base;\n"
        "const Base* OrtGetApiBase(void) { static const Base base = {api, name}; return &base; }\n"
    )
    script, library = tmp_path / "versions", tmp_path / "libonnxruntime.so.1"
    # the loader wants the symbols of this version
    script.write_text(f"VERS_{ort.__version__} {{ global: *; }};\n")
    names = ["-Wl,-soname,libonnxruntime.so.1", f"-Wl,--version-script={script}"]
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, *names], check=True)
    line = refused(client, demo_package.folder, "--verify", env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert "libonnxruntime: found 1.20.0, expected 1." in line
