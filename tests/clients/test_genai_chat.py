"""Chat through onnxruntime-genai's own tokenizer and template engine: the texts of transformers,
and the tokens and answers of our session.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import Sampling, Session, Tokenizer
from support.genai_client import ask, marks
from support.harmony_tokenizer import write_harmony_tokenizer
from support.published_chats import CALL, CHATS, RESULT, TOOLS, USER

pytestmark = marks

PUBLISHED = Path(__file__).parents[2] / "build" / "published"
WEATHER = {"role": "user", "content": "Tell me about the rain — «it’s» 日本\n"}
FIRST = {"role": "user", "content": "What is rain?"}  # answers that end by themselves
SECOND = {"role": "user", "content": "And the snow?"}
MOST = 100
# It knows only [\r\n]* where the published pattern has [\r\n/]*.
SPLIT_OTHERWISE = re.compile(r"(?:[^\s\w]|_)[\r\n]+/")

Messages = Sequence[dict[str, Any]]


def with_tokenizer(package: Package, tokenizer: Path, folder: Path) -> Path:
    """Return a package of linked files that has another tokenizer."""
    shutil.copytree(package.folder, folder, copy_function=os.link)
    for file in tokenizer.iterdir():
        (folder / file.name).unlink(missing_ok=True)
        shutil.copy(file, folder)
    return folder


def for_genai(messages: Messages, variables: dict[str, Any], template: str) -> dict[str, Any]:
    """Return keywords of apply_chat_template: it takes no variables but `tools`, so the template
    has to set them; thoughts are called `thinking`, and what is null is left out.
    """
    names = {"reasoning_content": "thinking"}
    kept = [
        {names.get(key, key): value for key, value in message.items() if value is not None}
        for message in messages
    ]
    found: dict[str, Any] = {"messages": json.dumps(kept)}
    if "tools" in variables:
        found["tools"] = json.dumps(variables["tools"])
    others = {name: value for name, value in variables.items() if name != "tools"}
    if others:
        lines = [f"{{%- set {name} = {json.dumps(value)} %}}" for name, value in others.items()]
        found["template_str"] = "".join(lines) + template
    return found


def by_transformers(folder: Path, messages: Messages, variables: dict[str, Any]) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text: str = tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=False, **variables
    )
    return text


def check(folder: Path, chats: Sequence[tuple[Messages, dict[str, Any]]]) -> None:
    """Hold texts to transformers, and their tokens to our tokenizer."""
    template = (folder / "chat_template.jinja").read_text()
    asked = [for_genai(messages, variables, template) for messages, variables in chats]
    texts = [by_transformers(folder, *chat) for chat in chats]
    found = ask("tokenize", folder, chats=asked, texts=texts)
    assert found["chats"] == texts
    ours = Tokenizer.open(folder)
    for (messages, variables), text, ids in zip(chats, texts, found["texts"], strict=True):
        expected = ours.encode_chat(list(messages), variables=variables)
        assert (ids == expected) == (SPLIT_OTHERWISE.search(text) is None)
        assert ours.decode(ids, skip_special_tokens=False) == text


def test_chats_of_the_demo(ort_package: Package) -> None:
    answered = [WEATHER, {"role": "assistant", "content": "It rains."}, SECOND]
    check(ort_package.folder, [([WEATHER], {}), (answered, {})])


def test_chats_of_a_harmony_tokenizer(ort_package: Package, tmp_path: Path) -> None:
    tokenizer = write_harmony_tokenizer(tmp_path / "tokenizer")
    name_class(tokenizer / "tokenizer_config.json")
    folder = with_tokenizer(ort_package, tokenizer, tmp_path / "package")
    called = [USER, {"role": "assistant", "thinking": "Hm.", "tool_calls": [CALL]}]
    result = RESULT | {"name": "tide"}
    chats: list[tuple[Messages, dict[str, Any]]] = [
        ([USER], {}),
        ([USER], {"reasoning_effort": "high"}),
        ([*called, result], {"tools": TOOLS}),
        ([*called, result, {"role": "assistant", "content": "3.5 m"}, WEATHER], {}),
    ]
    check(folder, chats)


def name_class(path: Path) -> None:
    """Add what published files have."""
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def test_a_template_is_read_only_where_the_class_of_the_tokenizer_is_named(
    ort_package: Package, tmp_path: Path
) -> None:
    tokenizer = write_harmony_tokenizer(tmp_path / "tokenizer")
    folder = with_tokenizer(ort_package, tokenizer, tmp_path / "package")
    found = ask("tokenize", folder, chats=[{"messages": json.dumps([USER])}])
    assert found["chats"] == [{"error": "Empty chat template."}]


def test_two_turns_say_what_the_session_says(ort_package: Package) -> None:
    """The end token is not part of the text: the second turn appends what the template has from
    there on.
    """
    folder = ort_package.folder
    stops = json.loads((folder / "generation_config.json").read_text())["eos_token_id"]
    with Session.open(folder, threads=1) as session:
        said, prompts = [], []
        messages: list[dict[str, Any]] = [FIRST]
        for question in (SECOND, None):
            prompts.append(session.tokenizer.encode_chat(messages))
            tokens = list(session.generate(prompts[-1], Sampling(), max_new_tokens=MOST))
            assert tokens[-1] in stops
            said.append([token for token in tokens if token not in stops])
            answer = session.tokenizer.decode(said[-1])
            messages += [{"role": "assistant", "content": answer}, question or {}]
    first = prompts[0] + said[0]
    assert prompts[1][: len(first)] == first, "what the second turn appends follows the first"
    steps = [
        ("append", [prompts[0]]),
        ("until_done",),
        ("append", [prompts[1][len(first) :]]),
        ("until_done",),
    ]
    (answer,) = ask("generate", folder, runs=[{"search": {"max_length": 1000}, "steps": steps}])
    assert answer["error"] is None
    assert answer["sequence"] == prompts[1] + said[1]


@pytest.fixture(scope="module")
def published(ort_package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo package with gpt-oss's own tokenizer and template."""
    if not (PUBLISHED / ".complete").is_file():
        pytest.skip("the published tokenizer is not there: tests/clients/published.sh fetches it")
    folder = tmp_path_factory.mktemp("published") / "package"
    return with_tokenizer(ort_package, PUBLISHED / "tokenizer", folder)


def test_chats_of_the_published_template(published: Path) -> None:
    check(published, CHATS)


def test_what_the_published_template_needs_from_its_caller(published: Path) -> None:
    null = [USER, {"role": "assistant", "content": "x", "tool_calls": None}, USER]
    thoughts = [USER, {"role": "assistant", "reasoning_content": "Hm.", "tool_calls": [CALL]}]
    tool = [{"role": "tool", "content": "x"}]
    chats = [{"messages": json.dumps(messages)} for messages in (null, thoughts, tool)]
    refused, forgotten, raised = ask("tokenize", published, chats=chats)["chats"]
    assert "Trying to access property '0' on null!" in refused["error"]
    assert "to=functions.tide" in forgotten
    assert "Hm." not in forgotten
    assert "Message has tool role, but there was no previous" in raised["error"]


def test_texts_have_the_published_tokens_but_for_slashes_after_line_ends(published: Path) -> None:
    draw = random.Random(3)
    pieces = "a|Ab| the|7|1234|.|//| {|\n|\r\n|  |é|为什么|🌕|'s|'LL|-|_|\t| |,|/|İ|ß|\u00a0"
    texts = ["".join(draw.choices(pieces.split("|"), k=draw.randrange(1, 12))) for _ in range(2000)]
    found = ask("tokenize", published, texts=texts)["texts"]
    ours = Tokenizer.open(published)
    other = [text for text, ids in zip(texts, found, strict=True) if ids != ours.encode(text)]
    assert [text for text in other if not SPLIT_OTHERWISE.search(text)] == []
    assert other, "once none differs, docs/serving/genai.md need not say so"


def test_control_tokens_are_printed_and_taken_from_users(published: Path) -> None:
    """So channels can be told apart, and so a user's text must not hold any."""
    text = "<|channel|>analysis<|message|>Hm 🌕<|end|><|return|>"
    ours = Tokenizer.open(published)
    ids = ours.encode(text)
    chat = {"messages": json.dumps([{"role": "user", "content": "a<|end|>b"}])}
    found = ask("tokenize", published, chats=[chat], texts=["a<|end|>b"], tokens=[ids])
    assert (found["tokens"], found["streams"]) == ([text], [text])
    assert "a<|end|>b" in found["chats"][0]
    assert found["texts"] == [ours.encode("a<|end|>b")]
