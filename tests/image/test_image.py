"""The image, built and run without a daemon: what docs/server.md says of a container holds."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gptoss_onnx.exporter import Package

pytestmark = [
    pytest.mark.image,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a chroot"),
    pytest.mark.skipif(
        not (shutil.which("buildah") and shutil.which("debootstrap")),
        reason="needs the Debian packages buildah and debootstrap",
    ),
]

TAG = "localhost/gptoss-onnx-test"
KEY = "key-of-a-test"
ENVIRONMENT = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}


def buildah(*words: str) -> str:
    done = subprocess.run(
        ["buildah", *words], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.fixture(scope="module")
def container() -> Iterator[str]:
    """A container of the image, which this builds."""
    script = Path(__file__).parent / "build.sh"
    subprocess.run(["bash", str(script), TAG], check=True)
    name = buildah("from", TAG)
    yield name
    buildah("rm", name)


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    """What the image says of itself."""
    document: dict[str, object] = json.loads(buildah("inspect", "--type", "image", TAG))
    config: dict[str, object] = document["Docker"]["config"]  # type: ignore[index]
    return config


@contextmanager
def running(container: str, package: Package, port: int) -> Iterator[subprocess.Popen[str]]:
    """The server of the image on a port, as its user and without a capability."""
    how = ["--user", "10001", "--cap-drop", "all", "--env", f"GPTOSS_ONNX_API_KEYS={KEY}"]
    mount = ["--volume", f"{package.folder}:/package:ro"]
    serve = ["gptoss-onnx", "serve", "/package", "--host", "0.0.0.0", "--port", str(port)]
    command = ["buildah", "run", *how, *mount, container, "--", *serve]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            subprocess.run(["pkill", "-TERM", "-f", f"bin/gptoss-onnx serve .*--port {port}"])
            process.wait(timeout=60)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def answer(port: int, path: str, body: object = None, key: str = "") -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def wait_until_ready(port: int, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if answer(port, "/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    pytest.fail("the server in the image was not ready in time")


def test_the_image_serves_a_package_to_who_has_the_key(
    container: str, demo_package: Package, settings: dict[str, object]
) -> None:
    question = {"prompt": "It was a bright morning", "max_tokens": 8, "temperature": 0}
    port = free_port()
    with running(container, demo_package, port) as process:
        wait_until_ready(port)
        assert answer(port, "/v1/completions", question)[0] == 401
        status, body = answer(port, "/v1/completions", question, KEY)
        assert status == 200, body
        assert json.loads(body)["usage"]["completion_tokens"] == 8
        health = settings["Healthcheck"]["Test"]  # type: ignore[index]
        probe = [word.replace(":8000", f":{port}") for word in health[1:]]
        buildah("run", "--user", "10001", container, "--", *probe)
    assert process.stdout is not None
    printed = process.stdout.read()
    assert "native" in printed  # the kernels that the build compiled
    assert "stopping" in printed


def test_the_image_has_no_compiler_and_is_not_roots(
    container: str, settings: dict[str, object]
) -> None:
    assert settings["User"] == "10001"
    program = "import shutil; print(shutil.which('g++'), shutil.which('cmake'))"
    assert buildah("run", container, "--", "python", "-c", program) == "None None"
