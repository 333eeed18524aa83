"""What gets installed: one import package, from every root folder, with light imports."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {"checkpoint", "exporter", "custom_ops", "runtime", "validation", "reference", "serving"}


def test_every_root_package_folder_is_mapped_into_gptoss_onnx() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    mapping = pyproject["tool"]["scikit-build"]["wheel"]["packages"]
    package_folders = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert package_folders == FOLDERS
    expected = {f"gptoss_onnx/{folder}": folder for folder in package_folders}
    assert mapping == {"gptoss_onnx": "src/gptoss_onnx", **expected}


@pytest.fixture(scope="module")
def wheel_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel of this tree, built without the native library because that part is
    quick.
    """
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        ROOT,
    ]
    env = {**os.environ, "GPTOSS_SKIP_NATIVE": "1"}
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_wheel_installs_no_top_level_name_but_gptoss_onnx(wheel_files: list[str]) -> None:
    top_level = {name.split("/")[0] for name in wheel_files}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"gptoss_onnx"}


def test_wheel_holds_every_python_file_and_no_native_source(wheel_files: list[str]) -> None:
    sources = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
    expected = {f"gptoss_onnx/{path.relative_to(ROOT)}" for path in sources}
    expected |= {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*.py")}
    assert {name for name in wheel_files if name.endswith(".py")} == expected
    assert not [name for name in wheel_files if "/native/" in name]


def test_wheel_holds_what_reports_are_made_of(wheel_files: list[str]) -> None:
    folder = ROOT / "validation" / "report"
    parts = [path for kind in ("css", "json") for path in folder.glob(f"*.{kind}")]
    assert {"schema.json", "page.css"} <= {path.name for path in parts}
    assert {f"gptoss_onnx/{path.relative_to(ROOT)}" for path in parts} <= set(wheel_files)


def test_wheel_holds_the_chat_page(wheel_files: list[str]) -> None:
    parts = [path for path in (ROOT / "serving" / "page").iterdir() if path.is_file()]
    assert {".html", ".css", ".mjs"} <= {path.suffix for path in parts}
    assert {f"gptoss_onnx/{path.relative_to(ROOT)}" for path in parts} <= set(wheel_files)


@pytest.mark.parametrize("module", ["gptoss_onnx.runtime", "gptoss_onnx.custom_ops"])
def test_import_leaves_the_heavy_packages_unloaded(module: str) -> None:
    heavy = {"torch", "transformers", "onnxscript"}
    code = f"import sys, {module}; print(*sorted({heavy!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout.strip()) == (0, ""), result.stderr
