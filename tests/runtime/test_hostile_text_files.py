"""Templates and tokenizers of strangers: whatever they do, one line of ours, within ten seconds and
a gigabyte.
"""

import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.errors import GptOssError, InputError, PackageError
from gptoss_onnx.runtime import Tokenizer, template_process
from gptoss_onnx.runtime.chat import ChatTemplate
from support.harmony_tokenizer import write_harmony_tokenizer

USER = [{"role": "user", "content": "x"}]
LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3


def again(first: str, body: str, last: str) -> str:
    """Return a template that changes the variables of `first` sixty times."""
    return f"{{% set n = namespace({first}) %}}{{% for i in range(60) %}}{body}{{% endfor %}}{last}"


TWICE = (
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}"
)
NEST_X, NEST_Y = "{% set n.x = [n.x, n.x] %}", "{% set n.y = [n.y, n.y] %}"
HOSTILE = {
    "nested loops": LOOPS,
    "loops that write": LOOPS.replace("{% endfor %}", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{% endfor %}", 1),
    "a long text": "{{ 'a' * 10**10 }}",
    "a long list": "{{ [0] * 10**10 }}",
    "a huge power": "{{ 7 ** (10**9) }}",
    "a huge product": again("n=7", "{% set n.n = n.n * n.n %}", "{{ n.n % 9 }}"),
    "a wide number": "{{ '%1000000000d' % 1 }}",
    "a wide field": "{{ '{:1000000000}'.format(1) }}",
    "a wide filter": "{{ 'a' | center(10**9) }}",
    "a deep indent": "{{ ('a\n' * 1000) | indent(10**9) }}",
    "batches": "{{ [1] | batch(10**9, 0) | list | length }}",
    "doubling": again("s='aaaaaaaa'", "{% set n.s = n.s + n.s %}", "{{ n.s }}"),
    "lists in lists": again("x=[1]", NEST_X, "{{ n.x | tojson }}"),
    "lists compared": again("x=[1], y=[1]", NEST_X + NEST_Y, "{{ n.x == n.y }}"),
    "a macro that calls itself": "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "a macro that calls itself twice": TWICE,
    "lorem ipsum": "{{ lipsum(n=10**7) }}",
    "division by zero": "{{ 1 // 0 }}",
    "a wrong type": "{{ 1 + 'a' }}",
    "an undefined name": "{{ nothing.of.the.kind }}",
    "a wrong date": "{{ strftime_now(3) }}",
    "another template": "{% include '/etc/passwd' %}",
    "python's inside": "{{ messages.__class__.__mro__ }}",
    "a long refusal": "{{ raise_exception('a\n' * 10**6) }}",
    "a refusal that is no text": "{{ raise_exception(messages) }}",
}  # fmt: skip
UNREADABLE = {
    "brackets": "{{ " + "(" * 20000 + ")" * 20000 + " }}",
    "negations": "{{ " + "not " * 50000 + "1 }}",
    "blocks": "{% if 1 %}" * 30000,
    "a constant": "{{ 'a' * 10**10 if 7 ** 7 ** 7 ** 7 else 1 }}",
    "no template": "{% if %}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_ends_in_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name != "nested loops":  # one waits as long as users do
        monkeypatch.setattr(template_process, "SECONDS", 1.0)
    begin = time.monotonic()
    with pytest.raises((InputError, PackageError)) as caught:
        ChatTemplate(HOSTILE[name], {}, tmp_path / "chat_template.jinja").render(USER)
    assert time.monotonic() - begin < 10
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/chat_template.jinja: ")
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_template_that_cannot_be_compiled_ends_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(GptOssError, match=r"^[^\n]{1,1000}$"):
        ChatTemplate(UNREADABLE[name], {}, tmp_path / "chat_template.jinja").render(USER)


def test_a_template_works_again_after_it_went_too_far(tmp_path: Path) -> None:
    source = "{% if messages[0].content == 'x' %}{{ 'a' * 10**10 }}{% else %}{{ messages[0].content }}{% endif %}"
    template = ChatTemplate(source, {}, tmp_path)
    for _ in range(2):
        with pytest.raises(PackageError, match="goes beyond its limits: needs more memory"):
            template.render(USER)
        assert template.render([{"role": "user", "content": "well"}]) == "well"


def test_threads_and_forks_share_a_template(tmp_path: Path) -> None:
    template = ChatTemplate("{{ messages[0].content }}", {}, tmp_path)
    wrong: list[str] = []

    def render(name: str) -> None:
        for count in range(20):
            said = f"{name} {count}"
            if template.render([{"role": "user", "content": said}]) != said:
                wrong.append(said)

    threads = [threading.Thread(target=render, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    child = os.fork()
    if child == 0:  # a server that forks after it has opened its package
        well = template.render(USER) == "x"
        template._process._finalizer()  # as when a fork exits in the usual way
        os._exit(0 if well else 1)
    assert template.render(USER) == "x"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    process = template._process._process
    assert process is not None
    assert process.poll() is None
    process.kill()
    process.wait()
    assert template.render(USER) == "x"  # in another one


def test_a_template_has_less_than_a_gigabyte(tmp_path: Path) -> None:
    template = ChatTemplate("x", {}, tmp_path)
    process = template._process._process
    assert process is not None
    assert resource.prlimit(process.pid, resource.RLIMIT_AS)[1] <= 2**30
    assert resource.prlimit(process.pid, resource.RLIMIT_CPU)[0] <= 10


def test_a_template_no_longer_used_leaves_no_process(tmp_path: Path) -> None:
    template = ChatTemplate("x", {}, tmp_path)
    process = template._process._process
    assert process is not None
    assert process.poll() is None
    del template
    assert process.poll() is not None


BPE: dict[str, Any] = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
}
BPE |= {
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "vocab": {"a": 0, "b": 1, "ab": 2},
    "merges": ["a b"],
}
PANICS: dict[str, dict[str, Any]] = {
    "while it is read": {"model": BPE | {"continuing_subword_prefix": "abcdef"}},
    "in its normalizer": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "at work": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
}


DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
GROWING: dict[str, dict[str, Any]] = {
    "normalizer": {"normalizer": {"type": "Sequence", "normalizers": [DOUBLE] * 40}},
    "decoder": {"decoder": {"type": "Sequence", "decoders": [DOUBLE] * 40}},
    "one rule": {
        "normalizer": {"type": "Replace", "pattern": {"Regex": ""}, "content": "a" * 10**6}
    },
}


def write_tokenizer(folder: Path, **changes: Any) -> None:
    parts = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    document = {"version": "1.0", **parts, "added_tokens": [], "model": BPE} | changes
    (folder / "tokenizer.json").write_text(json.dumps(document))


@pytest.mark.parametrize("name", GROWING)
def test_a_tokenizer_whose_texts_grow_is_refused(tmp_path: Path, name: str) -> None:
    write_tokenizer(tmp_path, **GROWING[name])
    with pytest.raises(PackageError, match=r"makes more than 100 letters or tokens of one"):
        Tokenizer.open(tmp_path)


def test_a_tokenizer_does_not_pad(tmp_path: Path) -> None:
    padding = {"strategy": {"Fixed": 10**13}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    write_tokenizer(tmp_path, padding=padding, normalizer=DOUBLE)
    assert Tokenizer.open(tmp_path).encode("ab") == [0, 2]


def test_a_panic_at_one_text_is_one_line(tmp_path: Path) -> None:
    """Onig gives up an expression that takes too long, by a panic; which text it is no probe can
    know.
    """
    endless = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    write_tokenizer(tmp_path, pre_tokenizer=endless)
    for method in ("encode", "encode_plain"):
        # In a process of its own: where other threads run, what they say meanwhile must not be held
        # back.
        code = f"""
import sys
from gptoss_onnx.errors import PackageError
from gptoss_onnx.runtime import Tokenizer
tokenizer = Tokenizer.open(sys.argv[1])
try:
    tokenizer.{method}("a" * 40 + "b")
except PackageError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        assert re.fullmatch(
            r"\S*tokenizer\.json: cannot encode this \(.*retry-limit.*\); export.*\n", done.stdout
        )


@pytest.mark.parametrize("name", PANICS)
def test_a_tokenizer_that_panics_is_one_line(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_tokenizer(tmp_path, **PANICS[name])
    with pytest.raises(
        PackageError,
        match=r"tokenizer\.json: not a tokenizer \([^\n]+\); export the package again$",
    ):
        Tokenizer.open(tmp_path)
    assert capfd.readouterr().err == ""


def test_a_panic_on_one_text_is_ours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.open(write_harmony_tokenizer(tmp_path))

    class PanicException(BaseException):
        """What pyo3 raises, by name: its class cannot be imported."""

    class Panicking:
        def __getattr__(self, name: str) -> Any:
            raise PanicException("index out\nof range")

    tokenizer.special_tokens  # noqa: B018 - read before the backend goes
    monkeypatch.setattr(tokenizer, "_backend", Panicking())
    for call in (tokenizer.encode, tokenizer.encode_plain, lambda _: tokenizer.decode([1])):
        with pytest.raises(
            PackageError, match=r"tokenizer\.json: cannot \w+ this \(index out of range\); export"
        ):
            call("x")


def test_an_interrupt_is_no_panic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.open(write_harmony_tokenizer(tmp_path))

    class Interrupted:
        def encode(self, *_: Any, **__: Any) -> Any:
            raise KeyboardInterrupt

    monkeypatch.setattr(tokenizer, "_backend", Interrupted())
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode("x")


def test_token_ids_are_checked(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(write_harmony_tokenizer(tmp_path))
    for wrong in (-1, 2**40, "a", 1.5, None):
        with pytest.raises(InputError, match=r"token 1: found .*, expected a token id"):
            tokenizer.decode([1, wrong])  # type: ignore[list-item]  # wrong on purpose
    with pytest.raises(InputError, match="text: found int, expected a text"):
        tokenizer.encode(3)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_files_that_never_end_are_refused(tmp_path: Path, file: str) -> None:
    write_harmony_tokenizer(tmp_path)
    (tmp_path / file).unlink()
    os.mkfifo(tmp_path / file)
    with pytest.raises(PackageError, match=r"something else than a file|expected a regular file"):
        Tokenizer.open(tmp_path).encode_chat(USER)
    (tmp_path / file).unlink()
    with (tmp_path / file).open("wb") as sparse:
        sparse.truncate(100_000_000)
    with pytest.raises(PackageError, match=r"found more than \d+ bytes"):
        Tokenizer.open(tmp_path).encode_chat(USER)
    (tmp_path / file).unlink()
    (tmp_path / file).write_bytes(b"[" * 100_000 if file.endswith("json") else b"\xff\xff")
    with pytest.raises(PackageError, match=r"^[^\n]+$"):
        Tokenizer.open(tmp_path).encode_chat(USER)
