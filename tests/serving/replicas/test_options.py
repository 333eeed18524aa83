"""What a `serve.yaml` says of replicas, and the example itself."""

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # ships no stubs

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.replicas.options import options_of

EXAMPLE = Path(__file__).parents[3] / "serving" / "replicas" / "serve.yaml"


def test_the_example_says_options() -> None:
    (application,) = yaml.safe_load(EXAMPLE.read_text())["applications"]
    options = options_of(application["args"])
    assert options.settings.model == "gpt-oss-20b"
    assert (options.replicas, options.threads, options.settings.drain_seconds) == (4, None, 60)


def test_the_models_name_is_that_of_the_folder() -> None:
    assert options_of({"package": "/models/mine"}).settings.model == "mine"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "missing package"),
        ({"package": 7}, "package: found 7, expected str|missing settings.model"),
        ({"package": "/m", "speed": 1}, "unknown speed"),
        ({"package": "/m", "slots": "8"}, "slots: found '8', expected int"),
        ({"package": "/m", "replicas": 0}, "replicas: found 0, expected 1 to 1000"),
        ({"package": "/m", "kernels": "fast"}, "kernels: found 'fast', expected auto"),
        ({"package": "/m", "settings": {"ports": 1}}, "unknown settings.ports"),
        ({"package": "/m", "settings": {"drain_seconds": 0}}, "drain_seconds: found 0"),
        ({"package": "/m", "settings": []}, "settings: found .., expected an object"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        options_of(arguments)
    assert "\n" not in str(caught.value)
