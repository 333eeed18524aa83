"""What a config.json leaves out means what transformers takes for it."""

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from gptoss_onnx.errors import CheckpointError
from gptoss_onnx.reference.architecture import StoredNames
from gptoss_onnx.reference.architectures import ARCHITECTURES
from gptoss_onnx.reference.checkpoint import read_config
from gptoss_onnx.reference.parameters import ParameterPlan

JUDGED = [name for name in ARCHITECTURES if name in CONFIG_MAPPING]
# Of these the stored tensors decide, where transformers would drop biases that it does not expect.
BIASES = {"attention_bias", "mlp_bias"}
CASES = [(name, key) for name in JUDGED for key in ARCHITECTURES[name].tiny]


def outcome(model_type: str, document: dict[str, Any]) -> object:
    """The configuration, or what is refused without the keys' names."""
    tiny = dict(ARCHITECTURES[model_type].tiny)
    config = read_config(tiny, StoredNames([]), "")[2]
    names = StoredNames(ParameterPlan(ARCHITECTURES[model_type], config, StoredNames([])).expected)
    try:
        return read_config(document, names, "config.json")[2]
    except CheckpointError as error:
        return str(error).split(":")[0]


def test_every_architecture_of_transformers_is_judged() -> None:
    assert set(ARCHITECTURES) - set(JUDGED) == {"gpt_oss_lab"}


@pytest.mark.parametrize("model_type", JUDGED)
def test_the_table_is_transformers(model_type: str) -> None:
    slides = {"use_sliding_window": True} if model_type.startswith("qwen") else {}
    theirs = CONFIG_MAPPING[model_type](**slides)
    for key, value in ARCHITECTURES[model_type].defaults.items():
        held = theirs.rope_parameters if key == "rope_theta" else theirs.to_dict()
        assert held[key] == value, key


@pytest.mark.parametrize(("model_type", "key"), CASES)
def test_a_missing_key(model_type: str, key: str) -> None:
    if key in BIASES | {"model_type", "architectures"}:
        return
    document = {name: value for name, value in ARCHITECTURES[model_type].tiny.items()}
    del document[key]
    theirs = CONFIG_MAPPING[model_type](**document).to_dict()
    theirs["architectures"] = document["architectures"]
    assert outcome(model_type, document) == outcome(model_type, theirs)


@pytest.mark.parametrize("absent", [{}, {"rope_scaling": None}, {"rope_parameters": None}])
@pytest.mark.parametrize("theta", [{}, {"rope_theta": 5e4}])
def test_gpt_oss_without_rope_settings(absent: dict[str, Any], theta: dict[str, Any]) -> None:
    document = dict(ARCHITECTURES["gpt_oss"].tiny)
    del document["rope_scaling"], document["rope_theta"]
    document |= absent | theta
    theirs = CONFIG_MAPPING["gpt_oss"](**document).to_dict()
    theirs["architectures"] = document["architectures"]
    assert outcome("gpt_oss", document) == outcome("gpt_oss", theirs)


def test_experts_under_either_name() -> None:
    document = dict(ARCHITECTURES["gpt_oss"].tiny)
    document["num_experts"] = document.pop("num_local_experts")
    assert outcome("gpt_oss", document) == outcome("gpt_oss", dict(ARCHITECTURES["gpt_oss"].tiny))
