"""The composite action: its steps are run as a runner would, and what it writes is there."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from gptoss_onnx.exporter import Package
from support.command_line import CODE

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]


def test_no_input_is_part_of_a_script() -> None:
    """An input in a script could be more script."""
    assert ACTION["runs"]["using"] == "composite"
    scripts = [step["run"] for step in STEPS if "run" in step]
    assert len(scripts) == 2
    assert not [script for script in scripts if "${{" in script]
    assert all(step["shell"] == "bash" for step in STEPS if "run" in step)


def test_inputs_are_described_and_used() -> None:
    assert {name for name, entry in ACTION["inputs"].items() if entry.get("required")} == {
        "package",
        "reference",
    }
    used = (ROOT / "action.yml").read_text(encoding="utf-8")
    for name, entry in ACTION["inputs"].items():
        assert entry["description"].endswith(".")
        assert f"${{{{ inputs.{name} }}}}" in used


def test_the_documents_use_it_as_it_is() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    job = yaml.safe_load(example)["jobs"]["parity"]
    given = job["steps"][-1]["with"]
    assert given.keys() <= ACTION["inputs"].keys()
    assert {"package", "reference"} <= given.keys()


@pytest.fixture
def runner(tmp_path: Path) -> Path:
    """A runner's temporary folder, with this project in the place of an installed one."""
    program = tmp_path / "gptoss-onnx" / "bin" / "gptoss-onnx"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{CODE}" "$@"\n')
    program.chmod(0o755)
    return tmp_path


def validate(runner: Path, **inputs: object) -> subprocess.CompletedProcess[str]:
    """Run the action's own step as the runner does."""
    (step,) = (step for step in STEPS if step.get("id") == "validate")
    assert set(step["env"]) == {"PACKAGE", "REFERENCE", "OPTIONS", "BASELINE"}
    env = {**os.environ, "OPTIONS": "", "BASELINE": "", "RUNNER_TEMP": str(runner)}
    env |= {name: str(value) for name, value in inputs.items()}
    env |= {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(runner / "summary.md")}
    env["GITHUB_OUTPUT"] = str(runner / "output")
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_true_package_passes(runner: Path, tiny_package: Package, tiny_checkpoint: Path) -> None:
    done = validate(
        runner,
        PACKAGE=tiny_package.folder,
        REFERENCE=tiny_checkpoint,
        OPTIONS="--kernels native\n--suite quick",
    )
    assert done.returncode == 0, done.stderr
    name, _, folder = (runner / "output").read_text().strip().partition("=")
    assert name == "report"
    assert {path.name for path in Path(folder).iterdir()} == {
        "parity.json",
        "parity.html",
        "parity.xml",
    }
    assert (runner / "summary.md").read_text().startswith("## Passed")


def test_what_cannot_be_judged_fails_the_step(runner: Path, tiny_checkpoint: Path) -> None:
    done = validate(
        runner, PACKAGE="$(touch owned)", REFERENCE=tiny_checkpoint, BASELINE=runner / "none; x"
    )
    assert done.returncode == 2
    assert "none; x: not found" in done.stderr
    document = json.loads((runner / "parity-report" / "parity.json").read_text())
    assert document["package"] == "$(touch owned)"
    assert not (ROOT / "owned").exists()
    assert (runner / "summary.md").read_text().startswith("## Could not judge")
