"""A server whose model says given words, and OpenAI's client of it."""

from collections.abc import Iterator

import pytest
from openai import OpenAI

from support.client_scripts import SCRIPTS
from support.scripted_package import write_scripted_package
from support.scripted_server import ScriptedServer, scripted_server


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedServer]:
    package = tmp_path_factory.mktemp("responses") / "package"
    with scripted_server(write_scripted_package(package, list(SCRIPTS.values()))) as running:
        yield running


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as opened:
        yield opened
