"""Dockerfile, compose.yaml and what they name. No daemon is needed here; tests/image builds."""

import json
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptoss_onnx.cli.serve import serve

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return document


def seconds_after(option: str, words: list[str]) -> float:
    (value,) = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    return float(value)


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_image_is_built_from_is_what_the_project_installs() -> None:
    """Everything that pyproject.toml names is let through, and no weights or history are."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    build = pyproject["tool"]["scikit-build"]
    sources = {path.split("/")[0] for path in build["wheel"]["packages"].values()}
    sources.add(build["cmake"]["source-dir"].split("/")[0])
    texts = {pyproject["project"]["readme"], *pyproject["project"]["license-files"]}
    assert allowed == sources | texts | {"pyproject.toml", "constraints.txt"}


def test_the_command_line_takes_the_commands_of_the_containers(compose: dict[str, Any]) -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    (default,) = [json.loads(line[4:]) for line in lines if line.startswith("CMD ")]
    service = compose["services"]["server"]["command"]
    for words in (default, [word.replace("${MODEL_NAME:-gpt-oss}", "m") for word in service]):
        assert words[0] == "serve"
        context = serve.make_context("serve", list(words[1:]))
        assert str(context.params["package"]) == "/package"
        assert context.params["host"] == "0.0.0.0"


def test_containers_may_do_little_and_are_reached_from_this_machine_alone(
    compose: dict[str, Any],
) -> None:
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    (package,) = compose["services"]["server"]["volumes"]
    assert package["target"] == "/package"
    assert package["read_only"] is True


def test_answers_may_end_before_the_container_is_killed(compose: dict[str, Any]) -> None:
    server = compose["services"]["server"]
    grace = float(server["stop_grace_period"].removesuffix("s"))
    assert grace > seconds_after("--drain-seconds", server["command"]) + 10


def test_prometheus_asks_the_server_with_its_key(compose: dict[str, Any]) -> None:
    (job,) = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text())["scrape_configs"]
    server = compose["services"]["server"]
    (key,) = [word for word in server["command"] if word.startswith("--api-key-file=")]
    assert job["authorization"]["credentials_file"] == key.partition("=")[2]
    assert job["static_configs"] == [{"targets": ["server:8000"]}]
    for service in compose["services"].values():
        assert service["secrets"] == ["api_key"]


def test_the_comments_commands_name_what_the_file_reads(compose: dict[str, Any]) -> None:
    text = (ROOT / "compose.yaml").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("#   export ")]
    names = {word.partition("=")[0] for word in shlex.split(line[4:])[1:] if "=" in word}
    assert compose["secrets"]["api_key"]["environment"] in names
    assert "PACKAGE" in names
