"""The page of a report: complete, self-contained, and made of our own markup alone."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from gptoss_onnx.validation.report.document import Report
from gptoss_onnx.validation.report.html import to_html
from support.sample_reports import HOSTILE, failing, hostile, not_judged, passing

VOID = {"meta", "link", "path"}
# of our own, where a browser could fetch or run what an attribute says
LINKS = re.compile(r"#[\w-]+|data:,")


class Page(HTMLParser):
    """What a page is made of; checks that every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")


REPORTS: dict[str, Callable[[], Report]] = {
    "passed": passing,
    "failed": failing,
    "not judged": not_judged,
    **{f"hostile {index}": lambda text=text: hostile(text) for index, text in enumerate(HOSTILE)},
}


@pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS.keys())
def test_pages_are_closed_and_fetch_nothing(make: Callable[[], Report]) -> None:
    page = Page(to_html(make()))
    assert page.open == []
    assert not page.tags & {"script", "img", "iframe", "object", "embed", "form", "base"}
    assert len(set(page.ids)) == len(page.ids)
    targets = {value for name, value in page.attributes if name == "href"}
    assert all(LINKS.fullmatch(value) for value in targets)
    assert {value[1:] for value in targets if value.startswith("#")} <= set(page.ids)
    names = {name for name, _ in page.attributes}
    assert not names & {"src", "style", "srcset", "action", "background", "xlink:href"}
    assert not any(name.startswith("on") for name in names)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_strangers_are_no_markup(text: str) -> None:
    plain, page = Page(to_html(hostile("plain"))), Page(to_html(hostile(text)))
    assert page.tags == plain.tags
    assert len(page.attributes) == len(plain.attributes)
    assert all(letter.isprintable() or letter == "\n" for letter in to_html(hostile(text)))
    assert len(to_html(hostile(text))) < 600_000


def test_the_policy_allows_the_style_and_nothing_else() -> None:
    html = to_html(failing())
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in html
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_the_page_has_all_that_the_report_has() -> None:
    text = Page(to_html(failing())).text
    for part in (
        "Failed",
        "demo/package",
        "1.703125",
        "model.layers.3.mlp.experts.gate_up_proj_blocks",
        "MoEDispatchMXFP4: relative error 4.1e-02",
        "expected at most 2",
        "3 router ties",
        "the limit, 0.001",
        "gptoss-onnx validate demo/package \\\n  --reference demo/checkpoint \\\n  --kernels ort",
        "a processor with avx512",
        "onnxruntime",
        "not finite",
        "∞",
        "gptoss-node is not found on the PATH",
    ):
        assert part in text, part


def test_a_state_is_a_sign_and_a_word() -> None:
    html = to_html(failing())
    for sign, state in (("✓", "passed"), ("✗", "failed"), ("⊘", "refused"), ("≈", "accepted")):
        assert re.search(rf'aria-hidden="true">{sign}</span> <span class="word">{state}<', html)


def test_a_run_that_could_not_judge_says_why() -> None:
    text = Page(to_html(not_judged())).text
    assert "Could not judge" in text
    assert "manifest.json: not found" in text
