"""What a config.json of an architecture is refused for."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.synthetic import config_of


def refusal(model_type: str, changes: Mapping[str, Any]) -> str:
    """Return the message about an architecture's tiny config.json with `changes`.

    A value of `...` takes the key out.
    """
    document = copy.deepcopy({**ARCHITECTURES[model_type].tiny, **changes})
    with pytest.raises(CheckpointError) as caught:
        config_of({key: value for key, value in document.items() if value is not ...})
    return str(caught.value).removeprefix("config.json: ")
