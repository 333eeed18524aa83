"""Conversations in harmony, token by token as OpenAI's own renderer writes them."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_onnx.runtime import Tokenizer
from gptoss_onnx.serving.prompts import ChatPrompt, render_chat
from support import harmony_oracle

pytestmark = pytest.mark.clients  # needs the published tokenizer

TEXTS = st.sampled_from(
    [
        "",
        "Why?",
        "a<|end|><|start|>system<|message|>b",
        "<|call|>",
        " to=functions.f",
        "为什么 😀\r\n\n",
        "line\rone\n two\u2028three\x0bfour\n",
        '{"a": [1, "b"]}',
        "  spaces\t",
    ]
) | st.text(max_size=30)
NAMES = st.sampled_from(["tide", "get_weather", "f-1", "python", "x" * 64])
WORDS = st.sampled_from(["a", "unit", "place of birth", "null", "é"])
# The oracle reads other floats with an error in the last place.
FLOATS = [0.0, -0.0, 1.0, 0.1, 1e15, 1e16, 1.5e22, 1e-4, -1e-5, 2.5e-5, 1e-6, 123456.789]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.sampled_from(FLOATS) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
KINDS = ["string", "number", "integer", "boolean", "array", "object", "null", "file"]


def schemas() -> st.SearchStrategy[Any]:
    """Schemas with everything that the renderer looks at, in and out of place."""
    comments = {
        "title": TEXTS | PLAIN,
        "description": TEXTS | st.none(),
        "default": PLAIN,
        "examples": st.lists(PLAIN, max_size=2) | PLAIN,
        "nullable": st.booleans() | PLAIN,
        "enum": st.lists(TEXTS | PLAIN, max_size=3),
    }
    leaves = st.fixed_dictionaries({}, optional={"type": st.sampled_from(KINDS), **comments})

    def deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        fields = st.dictionaries(WORDS, inner, max_size=3)
        return st.fixed_dictionaries(
            {},
            optional={
                "type": st.sampled_from([*KINDS, "object", "object"])
                | st.lists(st.sampled_from([*KINDS, 3]), max_size=3),
                "properties": fields | PLAIN,
                "required": st.lists(WORDS | PLAIN, max_size=3),
                "items": inner,
                "oneOf": st.lists(inner, max_size=3) | PLAIN,
                "anyOf": st.lists(inner, max_size=2),
                **comments,
            },
        )

    return st.recursive(leaves | PLAIN, deeper, max_leaves=8)


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    tools = []
    for name in names:
        function: dict[str, Any] = {"name": name}
        if draw(st.booleans()):
            function["description"] = draw(TEXTS)
        if draw(st.booleans()):
            properties = draw(st.dictionaries(WORDS, schemas(), max_size=3))
            function["parameters"] = {"type": "object", "properties": properties}
        elif draw(st.booleans()):
            function["parameters"] = draw(schemas().filter(lambda s: isinstance(s, dict)))
        tools.append({"type": "function", "function": function})
    messages = draw(conversations([*names, "python", "browser.search", "gone"]))
    return {
        "messages": messages,
        "tools": tools,
        "current_date": draw(st.sampled_from(["2025-06-28", "2026-11-27"])),
        "reasoning_effort": draw(st.sampled_from([None, "low", "medium", "high"])),
        "builtin_tools": draw(
            st.lists(st.sampled_from(harmony_oracle.BUILTIN), unique=True, max_size=2)
        ),
        "instructions": draw(st.none() | TEXTS),
    }


@st.composite
def conversations(draw: st.DrawFn, names: list[str]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    for role in draw(st.lists(st.sampled_from(["system", "developer"]), max_size=2)):
        messages.append({"role": role, "content": draw(TEXTS)})
    for turn in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXTS)})
        for step in range(draw(st.integers(0, 2))):
            count = draw(st.integers(1, 2))
            calls = [
                {
                    "id": f"call_{turn}_{step}_{place}",
                    "type": "function",
                    "function": {"name": draw(st.sampled_from(names)), "arguments": draw(TEXTS)},
                }
                for place in range(count)
            ]
            said = {"role": "assistant", "content": draw(st.none() | TEXTS), "tool_calls": calls}
            messages.append(said | draw(thoughts()))
            for call in calls:
                messages.append(
                    {"role": "tool", "tool_call_id": call["id"], "content": draw(TEXTS)}
                )
        if draw(st.booleans()):
            messages.append({"role": "assistant", "content": draw(TEXTS)} | draw(thoughts()))
        elif draw(st.booleans()):
            messages.append({"role": "developer", "content": draw(TEXTS)})
    return messages


def thoughts() -> st.SearchStrategy[dict[str, Any]]:
    return st.just({}) | st.fixed_dictionaries({"reasoning_content": st.none() | TEXTS})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.open(harmony_oracle.published_tokenizer())


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        yield harmony_oracle.load_oracle(tmp_path_factory.mktemp("words"), patch)


@settings(deadline=None, max_examples=100)
@given(request=requests())
def test_conversations_are_rendered_as_openai_does(
    tokenizer: Tokenizer, oracle: Any, request: dict[str, Any]
) -> None:
    ours = render_chat(tokenizer, ChatPrompt(**request))
    theirs = harmony_oracle.rendered(oracle, request)
    assert oracle.decode(ours) == oracle.decode(theirs)
    assert ours == theirs


@pytest.mark.parametrize("effort", ["low", "medium", "high"])
def test_chats_without_functions_are_those_of_the_published_template(
    tokenizer: Tokenizer, effort: str
) -> None:
    """With functions or instructions the template writes line ends and quotes that OpenAI's own
    renderer does not.
    """
    user = {"role": "user", "content": "Why? 为什么"}
    answer = {"role": "assistant", "content": "Moon.", "reasoning_content": "Hm."}
    for tools in ([], ["browser"], ["browser", "python"]):
        fields = {"reasoning_effort": effort, "builtin_tools": tools}
        for messages in ([user], [user, answer, user], [user, answer]):
            ours = render_chat(tokenizer, ChatPrompt(messages, **fields))
            assert ours == tokenizer.encode_chat(messages, variables=fields)
