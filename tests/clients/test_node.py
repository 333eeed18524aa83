"""The Node client beside the Python session: the same tokens from the same package folders, on
every kind of kernel.
"""

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.custom_ops.library import library_path
from gptoss_onnx.exporter import Package, export
from gptoss_onnx.runtime import Sampling, Session
from support.node_client import CLIENT, build_node, succeed

PROMPT = [1428, 304, 258, 269, 352, 11, 282, 319, 466, 521]
NEW_TOKENS = 64
# The keys of the verdict and of its cases, as clients/README.md gives them.
VERDICT = [
    "format",
    "format_version",
    "passed",
    "client",
    "runtime",
    "package",
    "target",
    "kernels",
    "activations",
]
VERDICT += ["limit", "seconds", "cases"]
CASE = [
    "name",
    "passed",
    "positions",
    "max_abs",
    "logsumexp_abs",
    "greedy_tokens",
    "greedy_equal",
    "note",
]

pytestmark = [pytest.mark.node, pytest.mark.clients]


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command line of the client, installed where it stands and built with its addon."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    return build_node(tmp_path_factory)


@pytest.fixture(scope="session")
def library() -> str:
    path = library_path()
    if path is None:
        pytest.skip("the native library was not built (GPTOSS_SKIP_NATIVE)")
    return str(path)


def node_tokens(client: Path, folder: Path, kernels: str, library: str) -> list[int]:
    prompt = ("--prompt-tokens", ",".join(map(str, PROMPT)), "--max-new-tokens", str(NEW_TOKENS))
    options = ("--kernels", kernels, "--library", library, "--threads", "1", "--json")
    answer = json.loads(succeed("node", str(client), "generate", str(folder), *prompt, *options))
    assert answer["kernels"] == {"auto": "contrib"}.get(kernels, kernels)
    assert answer["finish_reason"] == ("length" if len(answer["tokens"]) == NEW_TOKENS else "stop")
    tokens: list[int] = answer["tokens"]
    return tokens


def python_tokens(folder: Path, kernels: Any) -> list[int]:
    with Session.open(folder, kernels=kernels, threads=1) as session:
        return list(session.generate(PROMPT, Sampling(), max_new_tokens=NEW_TOKENS))


def test_lockfile_names_no_registry() -> None:
    assert '"resolved"' not in (CLIENT / "package-lock.json").read_text()


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_greedy_continuation_is_pythons(
    client: Path, library: str, demo_package: Package, kernels: str
) -> None:
    expected = python_tokens(demo_package.folder, kernels)
    assert len(expected) == NEW_TOKENS
    assert node_tokens(client, demo_package.folder, kernels, library) == expected


def test_greedy_continuation_of_target_ort_is_pythons(
    client: Path, library: str, demo_package: Package, ort_int8_package: Package
) -> None:
    assert node_tokens(client, ort_int8_package.folder, "auto", library) == python_tokens(
        demo_package.folder, "native"
    )


@pytest.mark.parametrize("kv_dtype", ["float16", "bfloat16"])
def test_narrow_caches_give_pythons_tokens(
    client: Path, library: str, demo_checkpoint: Path, tmp_path: Path, kv_dtype: Any
) -> None:
    package = export(demo_checkpoint, tmp_path / "package", kv_dtype=kv_dtype)
    assert node_tokens(client, package.folder, "native", library) == python_tokens(
        package.folder, "native"
    )
    if kv_dtype == "float16":
        assert node_tokens(client, package.folder, "portable", library) == python_tokens(
            package.folder, "portable"
        )
    else:
        command = (
            "node",
            str(client),
            "generate",
            str(package.folder),
            "--prompt-tokens",
            "1",
            "--kernels",
            "portable",
        )
        refused = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, check=False)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr == (
            "gptoss-node: kv_dtype bfloat16: needs the native kernels: found kernels portable\n"
        )


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_a_float16_cache_that_overflows_is_named(
    client: Path, library: str, demo_checkpoint: Path, tmp_path: Path, kernels: str
) -> None:
    package = export(demo_checkpoint, tmp_path / "package", kv_dtype="float16", weights="copy")
    # Keys beyond 65504 become infinite in the cache, and what attends to them NaN.
    fill_bfloat16(package.folder / "model.safetensors", "model.layers.0.self_attn.k_proj.bias", 1e6)
    options = ("--prompt-tokens", "1,2,3", "--kernels", kernels, "--library", library)
    command = ("node", str(client), "generate", str(package.folder), *options)
    refused = subprocess.run(command, cwd=CLIENT, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("gptoss-node: ")
    assert refused.stderr.endswith(
        ": its cache is float16, which ends at 65504: export the package with --kv-dtype float32\n"
    )


def fill_bfloat16(file: Path, name: str, value: float) -> None:
    """Overwrite a bfloat16 tensor of a safetensors file with one value."""
    content = bytearray(file.read_bytes())
    begin = 8 + struct.unpack_from("<Q", content)[0]
    first, end = json.loads(content[8:begin])[name]["data_offsets"]
    pattern = struct.pack("<f", value)[2:]  # bfloat16 is the upper half of float32
    content[begin + first : begin + end] = pattern * ((end - first) // 2)
    file.write_bytes(content)


def test_weights_are_read_where_the_manifest_says(
    client: Path, library: str, demo_checkpoint: Path, tmp_path: Path
) -> None:
    package = export(demo_checkpoint, tmp_path / "package", weights="reference")
    tokens = [
        node_tokens(client, package.folder, kernels, library) for kernels in ("native", "portable")
    ]
    assert tokens == [python_tokens(package.folder, "native")] * 2


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_verdict_has_the_common_form(
    client: Path, library: str, demo_package: Package, kernels: str
) -> None:
    options = ("--kernels", kernels, "--library", library, "--threads", "1")
    verdict = json.loads(succeed("node", str(client), "verify", str(demo_package.folder), *options))
    assert list(verdict) == VERDICT
    assert (verdict["passed"], verdict["client"], verdict["kernels"]) == (True, "node", kernels)
    assert (verdict["target"], verdict["activations"], verdict["limit"]) == (
        "portable",
        "exact",
        1e-3,
    )
    assert all(list(case) == CASE and case["passed"] for case in verdict["cases"])
    golden = json.loads((demo_package.folder / "golden" / "golden.json").read_text())
    assert [case["name"] for case in verdict["cases"]] == [case["name"] for case in golden["cases"]]


def test_the_clients_own_tests_pass(
    client: Path, library: str, demo_package: Package, ort_int8_package: Package
) -> None:
    packages = {
        "GPTOSS_PACKAGE": str(demo_package.folder),
        "GPTOSS_ORT_PACKAGE": str(ort_int8_package.folder),
    }
    said = succeed("npm", "test", GPTOSS_OPS_LIBRARY=library, **packages)
    assert "# fail 0" in said
    assert "# skipped 0" in said
