"""Tokenizer, chat template and text stream, against transformers and against decoding everything at
once.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from gptoss_onnx.errors import InputError, PackageError
from gptoss_onnx.exporter import Package
from gptoss_onnx.runtime import TextStream, Tokenizer, chat_messages, open_package

SPECIAL = ("<|start|>", "<|end|>", "<|message|>")
TEMPLATE = """
{%- macro header(role) %}<|start|>{{ role }}<|message|>{% endmacro %}
{%- set ns = namespace(count=0) %}
{%- for message in messages %}
    {%- if message.role not in ["system", "user", "assistant"] %}
        {{- raise_exception("no such role: " + message.role) }}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- generation %}{{ header("assistant") + message.content + "<|end|>" }}{% endgeneration %}
    {%- else %}
        {{- header(message.role) + message.content + "<|end|>" }}
    {%- endif %}
    {%- set ns.count = ns.count + 1 %}
    {%- if ns.count > 5 %}{% break %}{% endif %}
{%- endfor %}
{{- {"effort": reasoning_effort | default("medium"), "html": "<é>"} | tojson }}
{{- strftime_now("%Y") }} {{ eos_token }} {{ tools is none }}
{%- if add_generation_prompt %}
{{ header("assistant") }}
{%- endif %}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer with few merges, so that most characters beyond ASCII take several
    tokens.
    """
    path = tmp_path_factory.mktemp("tokenizer")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["the cat sat on the mat; it stopped there. Привет 你好 😀😃"] * 3, trainer
    )
    backend.enable_truncation(3)  # left over from training; neither we nor transformers apply it
    backend.save(str(path / "tokenizer.json"))
    (path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|end|>"}}))
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.open(folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers leaves it unannotated
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|end|>", chat_template=TEMPLATE
    )


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.sampled_from(["a<|start|>b", " the cat", "naïve 😀"]))
def test_ids_and_text_agree_with_transformers(
    tokenizer: Tokenizer, theirs: PreTrainedTokenizerFast, text: str
) -> None:
    ids = tokenizer.encode(text)
    assert ids == theirs(text)["input_ids"]
    assert tokenizer.decode(ids) == theirs.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("variables", [{}, {"reasoning_effort": "high"}])
def test_chats_agree_with_transformers(
    tokenizer: Tokenizer,
    theirs: PreTrainedTokenizerFast,
    add_generation_prompt: bool,
    variables: dict[str, Any],
) -> None:
    messages = [*chat_messages("Hi <b>", "Be brief."), {"role": "assistant", "content": "Hello."}]
    expected = theirs.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=add_generation_prompt, **variables
    )
    assert tokenizer.chat_template.render(messages, add_generation_prompt, variables) == expected
    ids = theirs(expected, add_special_tokens=False)["input_ids"]
    assert tokenizer.encode_chat(messages, add_generation_prompt, variables) == ids


def test_a_template_can_refuse_and_cannot_escape(
    tokenizer: Tokenizer, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        InputError, match=r"chat_template\.jinja: refuses these messages: no such role: tool"
    ):
        tokenizer.encode_chat([{"role": "tool", "content": ""}])
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    named = {
        "chat_template": [
            {"name": "tool_use", "template": ""},
            {"name": "default", "template": escape},
        ]
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    with pytest.raises(InputError, match=r"refuses these messages: .*unsafe"):
        Tokenizer.open(tmp_path).encode_chat(chat_messages("x"))
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(PackageError, match="not a Jinja template"):
        Tokenizer.open(tmp_path).encode_chat(chat_messages("x"))


def test_what_is_missing_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(
        PackageError, match=r"found no tokenizer\.json; give token ids \(generate --prompt-tokens\)"
    ):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(PackageError, match="not a tokenizer"):
        Tokenizer.open(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(PackageError, match="found no chat template"):
        Tokenizer.open(tmp_path).encode_chat(chat_messages("x"))
    with pytest.raises(InputError, match="lone surrogate at character 1"):
        Tokenizer.open(tmp_path).encode("a\ud800")


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=40) | st.text("aé😀\ufffdжд", max_size=40))
def test_streamed_text_is_the_text(tokenizer: Tokenizer, text: str) -> None:
    stream = tokenizer.stream()
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    for given_so_far in range(len(pieces)):
        assert text.startswith("".join(pieces[: given_so_far + 1]))
    assert "".join(pieces) + stream.finish() == tokenizer.decode(tokenizer.encode(text))


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(0, 120), broken=st.booleans())
def test_streamed_bytes_that_are_no_text_read_as_decoded_at_once(
    tokenizer: Tokenizer, seed: int, size: int, broken: bool
) -> None:
    """An untrained model produces any tokens: broken sequences, special tokens in between, nothing
    held for ever.
    """
    incomplete = [token for token in range(300) if "\ufffd" in tokenizer.decode([token])]
    ids = random.Random(seed).choices(incomplete if broken else range(300), k=size)
    stream = tokenizer.stream()
    assert "".join([stream.push(token) for token in ids]) + stream.finish() == tokenizer.decode(ids)


@settings(deadline=None, max_examples=300)
@given(
    text=st.text("abc é", max_size=30),
    stop=st.lists(st.text("abc é", min_size=1, max_size=5), min_size=1, max_size=3),
)
def test_stop_strings_are_cut_out_wherever_tokens_end(
    tokenizer: Tokenizer, text: str, stop: list[str]
) -> None:
    stream = TextStream(tokenizer, stop)
    ids, given_text, pushed = tokenizer.encode(text), "", 0
    for token in ids:
        piece = stream.push(token)
        given_text += piece
        pushed += 1
        if stream.stopped:
            break
    given_text += stream.finish()
    said = tokenizer.decode(ids[:pushed])
    places = [place for s in stop if (place := said.find(s)) >= 0]
    assert stream.stopped == bool(places)
    assert given_text == (said[: min(places)] if places else text)
    assert stream.push(ids[0]) == "" if stream.stopped else True


def test_a_possible_stop_is_held_and_given_when_it_is_none(tokenizer: Tokenizer) -> None:
    stream = tokenizer.stream(("STOP",))
    pieces = [
        "".join(stream.push(token) for token in tokenizer.encode(part))
        for part in ("one S", "TO", "!", " ST")
    ]
    assert pieces == ["one ", "", "STO!", " "]
    assert stream.finish() == "ST"


def test_a_token_takes_the_same_time_wherever_it_stands(tokenizer: Tokenizer) -> None:
    """Also where tokens show nothing, or their bytes never become a character; counted in decoded
    tokens.
    """

    class Counting:
        work = 0

        def decode(self, ids: Sequence[int]) -> str:
            self.work += 1 + len(ids)
            return tokenizer.decode(ids)

    special = tokenizer.special_tokens["<|end|>"]
    continuation = next(
        token for token in range(300) if tokenizer.decode([token] * 2) == "\ufffd" * 2
    )
    lead = tokenizer.encode("😀")[0]
    for ids in (
        [special],
        [continuation],
        [lead],
        [lead, special],
        [continuation, special, lead],
        tokenizer.encode("a 你"),
    ):
        decoder, work = Counting(), []
        stream = TextStream(decoder, ("never said",))
        said = ""
        for count in range(3000):
            before = decoder.work
            said += stream.push(ids[count % len(ids)])
            work.append(decoder.work - before)
        assert max(work) < 300
        assert sum(work[-500:]) <= sum(work[500:1000]) + 300
        assert said + stream.finish() == tokenizer.decode(
            [ids[count % len(ids)] for count in range(3000)]
        )


def test_a_decoder_that_strips_the_first_space_keeps_the_others() -> None:
    """The window must not begin where the text does not; tokens that show nothing come at any
    place.
    """
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"▁a": 0, "b": 1, "▁": 2, "<s>": 3}, unk_token="b")
    )
    backend.decoder = tokenizers.decoders.Metaspace()
    backend.add_special_tokens(["<s>"])
    decoder = Tokenizer(backend, Path())
    draw = random.Random(5)
    for _ in range(200):
        ids = [draw.randrange(4) for _ in range(draw.randrange(60))]
        stream = TextStream(decoder)
        assert "".join([stream.push(token) for token in ids]) + stream.finish() == decoder.decode(
            ids
        )


@pytest.mark.parametrize("stop", ["abc", b"abc", 3, None, ("a", ""), (1,), {"a"}])
def test_stops_that_are_no_list_of_texts_are_refused(tokenizer: Tokenizer, stop: Any) -> None:
    with pytest.raises(InputError, match="stop: found "):
        tokenizer.stream(stop)


@pytest.mark.parametrize("folder", [None, 5, "", "\ud800", "a\0b"])
def test_what_is_no_path_is_refused(folder: Any) -> None:
    with pytest.raises(InputError, match="expected the path of a folder"):
        Tokenizer.open(folder)
    with pytest.raises(InputError, match="expected the path of a folder"):
        open_package(folder)


@pytest.mark.parametrize("ids", [None, 5, "12"])
def test_what_is_no_sequence_of_ids_is_refused(demo_package: Package, ids: Any) -> None:
    with pytest.raises(InputError, match="expected a sequence of token ids"):
        Tokenizer.open(demo_package.folder).decode(ids)
