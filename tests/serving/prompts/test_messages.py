"""Messages and tools of a request that are not as they should be: one line, which names the
field.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.prompts import ChatMessage, PastCall, read_messages, read_tools
from gptoss_onnx.serving.prompts.builtin_tools import builtin_namespaces
from gptoss_onnx.serving.prompts.harmony_head import developer_text
from gptoss_onnx.serving.prompts.tools import offered

USER = {"role": "user", "content": "x"}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def calling(**call: Any) -> dict[str, Any]:
    return {"role": "assistant", "tool_calls": [CALL | call]}


def function(**fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f"} | fields}


def assert_refused(read: Callable[[], object], where: str) -> None:
    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(where)
    assert "expected" in message
    assert "\n" not in message


PART = {"type": "text", "text": "x"}
DEEP: list[Any] = []
for _ in range(70):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ("x", "messages: found str"),
        ({}, "messages: found dict"),
        ([], "messages: found 0"),
        ([USER] * 4097, "messages: found 4097, expected 1 to 4096"),
        (["x"], "messages[0]: found str"),
        ([USER, {"content": "x"}], "messages[1].role: found none"),
        ([{"role": "function", "content": "x"}], "messages[0].role: found 'function'"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role: found ['user']"),
        ([{"role": "user\x1b\n", "content": "x"}], "messages[0].role: found 'user\\x1b\\n'"),
        ([{"role": "user"}], "messages[0].content: found none"),
        ([{"role": "system", "content": None}], "messages[0].content: found none"),
        ([{"role": "user", "content": 3}], "messages[0].content: found int"),
        ([{"role": "user", "content": ["x"]}], "messages[0].content[0]: found str"),
        (
            [USER, {"role": "user", "content": [PART, {"type": "image_url"}]}],
            "messages[1].content[1].type: found 'image_url', expected 'text'",
        ),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "messages[0].content[0].text: found none",
        ),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content: found a lone surrogate"),
        ([{"role": "assistant"}], "messages[0]: found no content and no tool_calls"),
        ([{"role": "assistant", "tool_calls": []}], "messages[0]: found no content and no tool_"),
        ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls: found"),
        ([{"role": "assistant", "reasoning": 3}], "messages[0].reasoning: found int"),
        ([{"role": "assistant", "tool_calls": ["x"]}], "messages[0].tool_calls[0].function: found"),
        ([calling(type="custom")], "messages[0].tool_calls[0].type: found 'custom'"),
        ([calling(id="")], "messages[0].tool_calls[0].id: found ''"),
        ([calling(id="x" * 257)], "messages[0].tool_calls[0].id: found 'xxx"),
        ([calling(function={"name": "a b"})], "messages[0].tool_calls[0].function.name: found"),
        (
            [calling(function={"name": "f", "arguments": 3})],
            "messages[0].tool_calls[0].function.arguments: found int",
        ),
        (
            [{"role": "assistant", "tool_calls": [CALL, CALL]}],
            "messages[0].tool_calls[1].id: found 'a' twice",
        ),
        (
            [{"role": "assistant", "tool_calls": [CALL] * 129}],
            "messages[0].tool_calls: found 129, expected at most 128",
        ),
        ([{"role": "tool", "content": "x"}], "messages[0].tool_call_id: found none"),
        (
            [calling(), {"role": "tool", "content": "x", "tool_call_id": "b"}],
            "messages[1].tool_call_id: found 'b', expected the id of a call",
        ),
        ([calling(), {"role": "tool", "tool_call_id": "a"}], "messages[1].content: found none"),
        ([USER, {"role": "user", "content": DEEP}], "messages[1].content[0][0]"),
    ],
)  # fmt: skip
def test_wrong_messages_are_named(messages: Any, where: str) -> None:
    assert_refused(lambda: read_messages(messages), where)


def test_messages_are_read() -> None:
    call = PastCall("a", "f", "{}")
    assert read_messages(
        [
            {"role": "user", "content": [], "name": "Ann", "unknown": {}},
            {"role": "assistant", "content": "", "reasoning_content": "", "thinking": "t"},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "r"}]},
            {"role": "assistant", "content": "x", "tool_calls": None},
        ]
    ) == (
        ChatMessage("user", ""),
        ChatMessage("assistant", "", None),
        ChatMessage("assistant", calls=(call,)),
        ChatMessage("tool", "r", answered=call),
        ChatMessage("assistant", "x"),
    )


def test_the_last_call_of_an_id_is_answered() -> None:
    later = CALL | {"function": {"name": "g", "arguments": {"a": "é"}}}
    result = {"role": "tool", "tool_call_id": "a", "content": "x"}
    read = read_messages([calling(), result, calling(**later), result])
    assert [message.answered.name for message in read if message.answered] == ["f", "g"]
    assert read[2].calls[0].arguments == '{"a": "é"}'


@pytest.mark.parametrize(
    ("tools", "where"),
    [
        ("x", "tools: found str"),
        ([function()] * 129, "tools: found 129, expected at most 128"),
        ([3], "tools[0]: found int"),
        ([{"type": "web_search"}], "tools[0].type: found 'web_search', expected 'function'"),
        ([{"type": "function"}], "tools[0].function: found NoneType"),
        ([function(name="a.b")], "tools[0].function.name: found 'a.b'"),
        ([function(name="x" * 65)], "tools[0].function.name: found 'xx"),
        ([function(name="f\n")], "tools[0].function.name: found 'f\\n'"),
        ([function(), function()], "tools[1].function.name: found 'f' twice"),
        ([function(description=3)], "tools[0].function.description: found int"),
        ([function(description="\udfff")], "tools[0].function.description: found a lone"),
        ([function(parameters=[])], "tools[0].function.parameters: found list"),
        ([function(parameters={"a": DEEP})], "tools[0].function.parameters.a[0]"),
        ([function(parameters={"default": float("nan")})], "tools[0].function.parameters.default"),
    ],
)
def test_wrong_tools_are_named(tools: Any, where: str) -> None:
    assert_refused(lambda: read_tools(tools), where)


def allowing(*tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": list(tools)}}


def test_choices_do_not_change_what_the_model_is_told() -> None:
    tools = read_tools([function(), function(name="g")])
    for choice in (None, "auto", "required", {"type": "function", "function": {"name": "g"}}):
        assert offered(tools, choice) == tools
    assert offered(tools, allowing(function(name="g"))) == tools
    assert offered(tools, "none") == ()


@pytest.mark.parametrize(
    "choice",
    [
        *["always", 3, {}, {"type": "function"}, {"function": {"name": "g"}}, {"function": {}}],
        *[allowing(), allowing(3), allowing(function(), {}), allowing(function(name="g"))],
        {"type": "allowed_tools"},
    ],
)
def test_a_wrong_choice_is_named(choice: Any) -> None:
    with pytest.raises(InputError, match=r"^tool_choice[^\n]*: found [^\n]*expected"):
        offered(read_tools([function()]), choice)
    with pytest.raises(InputError, match=r"^tool_choice: found 'required', expected tools"):
        offered((), "required")


def test_wrong_builtin_tools_and_formats_are_named() -> None:
    for names in ("python", ["bash"], [3]):
        with pytest.raises(InputError, match=r"^builtin_tools: found .*expected some of browser, "):
            builtin_namespaces(names)
    for wrong in (
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": 3},
    ):
        with pytest.raises(InputError, match=r"^response_format: found type"):
            developer_text([], (), wrong)
    nameless = {"type": "json_schema", "json_schema": {"schema": {}}}
    with pytest.raises(InputError, match=r"^response_format\.json_schema: found no name"):
        developer_text([], (), nameless)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["role", "content", "type", "text", "tool_calls", "function", "name", "arguments", "id"]
        ),
        inner | st.sampled_from(["user", "assistant", "tool", "function", "text"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(value=ANYTHING)
def test_anything_is_read_or_refused_in_one_line(value: Any) -> None:
    for read in (read_messages, read_tools):
        said = ""
        try:
            read(value)
        except InputError as error:
            said = str(error)
        assert "\n" not in said
