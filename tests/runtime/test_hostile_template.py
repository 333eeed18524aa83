"""Templates of strangers: whatever they do, one line of ours, within ten seconds and
a gigabyte.
"""

import os
import resource
import threading
import time
from pathlib import Path

import pytest

from gptoss_onnx.errors import GptOssError, InputError, PackageError
from gptoss_onnx.runtime import template_process
from gptoss_onnx.runtime.chat import ChatTemplate

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
    "loops that write": LOOPS.replace("{% endfor %}", "a" * 38 + "{% endfor %}", 1),
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
    source = (
        "{% if messages[0].content == 'x' %}{{ 'a' * 10**10 }}"
        "{% else %}{{ messages[0].content }}{% endif %}"
    )
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
