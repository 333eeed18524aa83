"""One engine on the demo package, and a server on it, for all tests of a process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import openai
import pytest

from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Session, Tokenizer
from gptoss_onnx.runtime.engine import Engine
from gptoss_onnx.serving.app import create_app
from gptoss_onnx.serving.settings import ServerSettings
from support.served import HeldMetrics, Served, served

MODEL = "demo"
CAPACITY = 256


@pytest.fixture(scope="session")
def tokenizer(demo_package: Package) -> Tokenizer:
    return Tokenizer.open(demo_package.folder)


@pytest.fixture(scope="session")
def session(demo_package: Package) -> Iterator[Session]:
    with Session.open(demo_package.folder, threads=1) as session:
        yield session


@pytest.fixture(scope="session")
def engine_metrics() -> HeldMetrics:
    return HeldMetrics()


@pytest.fixture(scope="session")
def engine(session: Session, engine_metrics: HeldMetrics) -> Iterator[Engine]:
    with Engine(
        session,
        slots=4,
        capacity=CAPACITY,
        chunk=32,
        max_queue=8,
        prefix_bytes=4_000_000,
        observe=engine_metrics,
    ) as engine:
        yield engine


@pytest.fixture(scope="session")
def server(engine: Engine, tokenizer: Tokenizer, engine_metrics: HeldMetrics) -> Iterator[Served]:
    with served(
        create_app(engine, tokenizer, ServerSettings(model=MODEL), engine_metrics)
    ) as running:
        yield running


@pytest.fixture
def serve(engine: Engine, tokenizer: Tokenizer) -> Iterator[Callable[..., Served]]:
    """Return what starts another server on the same engine, with settings of its own."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Served:
            app = create_app(engine, tokenizer, ServerSettings(model=MODEL, **settings))
            return stack.enter_context(served(app))

        yield start


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
