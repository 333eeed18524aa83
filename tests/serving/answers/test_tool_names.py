"""The name of the tool that a recipient means."""

import pytest

from gptoss_onnx.serving.answers.tool_names import ToolNames


@pytest.mark.parametrize(
    ("recipient", "name"),
    [
        ("functions.get_weather", "get_weather"),
        ("get_weather", "get_weather"),
        ("functions.functions.get_weather", "get_weather"),
        ("tools.get_weather", "get_weather"),
        ("functions.weather.get_weather", "get_weather"),
        ("functions.get_weatherjson", "get_weather"),
        ("functions.get_weathercommentary", "get_weather"),
        ("functions.get_weather<|channel|>commentary", "get_weather"),
        ("functions.get_weather,", "get_weather"),
        ("functions.get_weather.", "get_weather"),
        ("functions.to_json", "to_json"),  # offered as it stands
        ("functions.other", "other"),
        ("functions.other.thing", "other.thing"),
        ("functions.othersjson", "othersjson"),
        ("browser.search", "browser.search"),
        ("functions.größe 1", "gre1"),
        ("functions." + "x" * 99, "x" * 64),
        ("functions.", "unnamed"),
        ("<|x|>", "unnamed"),
        ("", "unnamed"),
        ("functions", "functions"),
    ],
)
def test_names(recipient: str, name: str) -> None:
    assert ToolNames(["get_weather", "to_json"]).called(recipient) == name
