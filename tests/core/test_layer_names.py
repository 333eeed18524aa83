"""The layer that a name is of."""

import pytest

from gptoss_onnx.layer_names import LayerName, layer_of

BEYOND = f"model.layers.{'9' * 5000}.mlp"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("model.layers.3.mlp.Add", ("model.layers.", 3, "mlp.Add")),
        ("model.layers.12", ("model.layers.", 12, "")),
        ("past_key_values.0.key", ("past_key_values.", 0, "key")),
        ("present.7.value", ("present.", 7, "value")),
        ("language_model.layers.1.norm.weight", ("language_model.layers.", 1, "norm.weight")),
    ],
)
def test_a_name_of_a_layer_has_parts(name: str, parts: tuple[str, int, str]) -> None:
    found = LayerName.of(name)
    assert found == LayerName(*parts)
    assert found.moved(found.layer) == name
    assert layer_of(found.moved(40)) == 40


@pytest.mark.parametrize(
    "name",
    [None, "", "logits", "model.norm.weight", "players.3.score", "model.layers.x.y", BEYOND],
)
def test_other_names_are_of_none(name: str | None) -> None:
    assert layer_of(name) is None
