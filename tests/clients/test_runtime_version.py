"""Which ONNX Runtime a package needs: every client reads it from the manifest, and refuses an older
one by name. The C++ client on the oldest one, and Node on the newest.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.reference.synthetic import make_checkpoint, tiny_document
from support.browser_client import CLIENT as BROWSER
from support.browser_client import BrowserClient
from support.cpp_client import Client, change_manifest, run
from support.expert_bytes import by_columns, change_experts
from support.node_client import CLIENT as NODE
from support.node_client import build_node
from support.other_runtime import cpp_environment, node_on_this_runtime, runtime_library

pytestmark = [pytest.mark.clients, pytest.mark.timeout(600)]

INT8 = "export it with --target ort --experts int8"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def runtime_of(client: Path, name: str) -> str:
    """The version of ONNX Runtime that a client has from npm."""
    version: str = json.loads((client / "node_modules" / name / "package.json").read_text())[
        "version"
    ]
    return version


def expected_of(package: Path, found: str) -> tuple[int, str]:
    """Exit code and line of a client: what the package's own field says."""
    least = json.loads((package / "manifest.json").read_text())["onnxruntime"]
    if numbers(found) >= numbers(least):
        return 0, ""
    return 2, f"this package needs ONNX Runtime {least}, found {found}: {INT8}\n"


@pytest.fixture
def copy(demo_package: Package, tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_package.folder, tmp_path / "package"))


@pytest.mark.cpp
@pytest.mark.parametrize(
    ("target", "op", "least", "found", "says"),
    [
        ("ort", "QMoE", "1.28", "1.28.0", "accepted"),
        ("ort", "QMoE", "1.32", "1.32.0-dev+9f1", "accepted"),
        ("ort", "QMoE", "1.32", "1.100.0", "accepted"),
        ("ort", "QMoE", "1.32", "2.0.0", "accepted"),
        ("ort", "QMoE", "1.9", "1.28.0", "accepted"),
        ("ort", "QMoE", "1.32", "1.30.0", f"needs ONNX Runtime 1.32, found 1.30.0: {INT8}"),
        ("ort", "QMoE", "1.32", "1.4.0", f"needs ONNX Runtime 1.32, found 1.4.0: {INT8}"),
        ("ort", "QMoE", "1.32", "none", f"needs ONNX Runtime 1.32, found none: {INT8}"),
        (
            "ort",
            "MoE",
            "1.32",
            "1.31.1",
            "found 1.31.1: export it with --target ort --onnxruntime 1.28",
        ),
        ("ort", "QMoE", "1.29", "1.28.0", "ONNX Runtime 1.29, found 1.28.0: use that or a newer"),
        ("portable", "MoE", None, "1.27.9", "ONNX Runtime 1.28, found 1.27.9: use that or a newer"),
    ],
)
def test_cpp_compares_versions_as_numbers(
    client: Client, copy: Path, target: str, op: str, least: str | None, found: str, says: str
) -> None:
    change_manifest(copy, "target", value=target)
    change_manifest(copy, "ops", value=[{"name": op}])
    if least is None:  # as in a package that was written before
        _forget(copy, "onnxruntime")
    else:
        change_manifest(copy, "onnxruntime", value=least)
    assert says in run(client.probe, "runtime", copy, found).out


def _forget(package: Path, key: str) -> None:
    file = package / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest[key]
    file.write_text(json.dumps(manifest))


@pytest.mark.cpp
@pytest.mark.parametrize("value", ["1", "1.", ".32", "1.-3", "x.32", "1.32x", "", 1.32])
def test_cpp_refuses_what_is_no_version(client: Client, copy: Path, value: object) -> None:
    change_manifest(copy, "onnxruntime", value=value)
    assert ": onnxruntime: found " in client.refused(copy)


@pytest.mark.cpp
@pytest.mark.parametrize(("version", "runs_windows"), [("1.28.0", False), ("1.29.0", True)])
def test_cpp_on_the_oldest(
    client: Client,
    demo_package: Package,
    ort_package: Package,
    ort_int8_package: Package,
    version: str,
    runs_windows: bool,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """GroupQueryAttention of 1.28 has no `sliding_window_cache`: no window in target ort."""
    environment = cpp_environment(tmp_path, runtime_library(tmp_path_factory, version))
    integers = ort_int8_package.folder
    for package in (demo_package.folder, integers) if runs_windows else (demo_package.folder,):
        verdict = client.run(package, "--verify", "--json", env=environment)
        assert verdict.code == 0, verdict.out + verdict.err
        assert verdict.json["runtime"] == f"onnxruntime {version}"
    if not runs_windows:
        said = client.run(integers, "--verify", env=environment)
        line = "this package needs ONNX Runtime 1.29, found 1.28.0: use that or a newer one\n"
        assert (said.code, said.err) == (2, f"gptoss-generate: {integers}: {line}")
    refused = client.run(ort_package.folder, "--verify", env=environment)
    line = f"gptoss-generate: {ort_package.folder}: {expected_of(ort_package.folder, version)[1]}"
    assert (refused.code, refused.out, refused.err) == (2, "", line)


@pytest.mark.node
def test_node_takes_what_its_version_runs(
    ort_package: Package, ort_int8_package: Package, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = build_node(tmp_path_factory)
    for package in (ort_package.folder, ort_int8_package.folder):
        code, line = expected_of(package, runtime_of(NODE, "onnxruntime-node"))
        done = run("node", program, "verify", package, "--threads", "1")
        said = f"gptoss-node: {package}: {line}" if line else ""
        assert (done.code, done.err) == (code, said)


@pytest.mark.node
def test_node_on_the_version_of_python(
    ort_package: Package, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It takes MXFP4 as soon as npm has that version, and golden vectors see what is wrong."""
    build_node(tmp_path_factory)
    program = node_on_this_runtime(tmp_path / "client")
    good = run("node", program, "verify", ort_package.folder, "--threads", "1")
    assert good.code == 0, good.out + good.err
    changed = change_experts(ort_package.folder, tmp_path / "package", "blocks", by_columns)
    wrong = run("node", program, "verify", changed, "--threads", "1")
    assert wrong.code == 1, wrong.err
    assert not any(case["passed"] for case in wrong.json["cases"])


@pytest.mark.browser
def test_browser_takes_what_its_version_runs(
    browser: BrowserClient, ort_package: Package, ort_int8_package: Package
) -> None:
    for package in (ort_package.folder, ort_int8_package.folder):
        code, line = expected_of(package, runtime_of(BROWSER, "onnxruntime-web"))
        done: subprocess.CompletedProcess[str] = browser.run("verify", package)
        assert (done.returncode, done.stderr) == (code, line)


@pytest.mark.cpp
def test_experts_that_are_not_mxfp4(client: Client, tmp_path: Path) -> None:
    """Their export for an older ONNX Runtime has another name."""
    checkpoint = tmp_path / "checkpoint"
    make_checkpoint(checkpoint, tiny_document("mixtral"))
    for least in ("1.32", "1.28"):
        package = export(
            checkpoint, tmp_path / least, target="ort", weights="copy", onnxruntime=least
        ).folder
        assert client.run(package, "--verify").code == 0
        said = run(client.probe, "runtime", package, "1.30.0").out
        refused = f"{package}: this package needs ONNX Runtime 1.32, found 1.30.0: "
        instead = "export it with --target ort --onnxruntime 1.28\n"
        assert said == (refused + instead if least == "1.32" else "accepted\n")
