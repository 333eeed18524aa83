"""The chat page of a server as a browser shows it, on a desktop and on a phone, in light and dark.

The pictures stay in `build/clients/chat`, for people to look at.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from support.browser_client import ROOT, BrowserClient
from support.scripted_package import letter, write_scripted_package
from support.serve_command import served

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(600)]

SCREENSHOTS = ROOT / "build" / "clients" / "chat"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEY = "a-key-of-the-test"
THOUGHTS = "The Moon pulls, the Sun too.\n\nA table and some code will do."
CODE = "def pull(mass, distance):\n    return mass / distance**3  # <b>not bold</b>"
ANSWER = f"""Tides come from **gravity that differs** from place to *place*.

## What follows

1. Two bulges
   - one below the Moon
2. and two low waters.

| Sun and Moon | Tide |
|---|---|
| in line | `spring` |

> The Sun does half of it.

```python
{CODE}
```

That is all."""
HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script> [go](javascript:alert(3)) "
    "<iframe src=https://elsewhere.example></iframe> ![x](https://elsewhere.example/x.png)"
)
LONG = "On and on it goes. " * 500  # nearly as long as the package takes, so it takes seconds
LONG_TOKENS = 500 * 15


def said(text: str, thoughts: str = "") -> str:
    """Return the script of an answer."""
    thought = f"<|channel|>analysis<|message|>{thoughts}<|end|><|start|>assistant"
    return f"{thought if thoughts else ''}<|channel|>final<|message|>{text}<|return|>"


SCRIPTS = {
    "plain": said(ANSWER, THOUGHTS),
    "hostile": said(HOSTILE, HOSTILE),
    "long": said(LONG),
}


@pytest.fixture(scope="module")
def seen(browser: BrowserClient, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser saw."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, f"found none of {', '.join(BROWSERS)} on PATH"
    folder = tmp_path_factory.mktemp("served") / "moon-and-sun"
    package = write_scripted_package(folder, list(SCRIPTS.values()))
    say = {name: letter(place) for place, name in enumerate(SCRIPTS)}
    with served(package) as open_server, served(package, "--api-key", KEY) as locked:
        setting = {"url": open_server.url, "locked": locked.url, "key": KEY, "say": say}
        script = Path(__file__).with_name("chat_page.mjs")
        result = browser.call("node", script, program, SCREENSHOTS, json.dumps(setting))
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout))


@pytest.fixture(scope="module")
def views(seen: dict[str, Any]) -> list[dict[str, Any]]:
    """What each view showed of a talk."""
    found: list[dict[str, Any]] = seen["views"]
    assert len(found) == 4
    return found


def test_nothing_comes_from_elsewhere_and_nothing_complains(views: list[dict[str, Any]]) -> None:
    for view in views:
        found = (view["console"], view["elsewhere"], view["dialogs"])
        assert found == ([], [], 0), view["view"]


def test_no_view_scrolls_sideways(seen: dict[str, Any]) -> None:
    everywhere = [*seen["views"], seen["stopped"], seen["wrong"], seen["locked"]]
    assert {entry["view"]: entry["overflow"] for entry in everywhere if entry["overflow"]} == {}


def test_an_answer_is_shown_while_it_comes(seen: dict[str, Any]) -> None:
    early = seen["stopped"]["early"]
    assert len(early) == 2
    for text in early:
        assert 0 < len(text) < len(LONG.rstrip())
        assert LONG.startswith(text)


def test_an_answer_has_its_thoughts_folded(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["model"] == "moon-and-sun"
        assert view["user"].startswith("Why are there tides?\n")
        assert view["folded"] is True
        assert re.fullmatch(r"Thought for [\d.]+ s", view["summary"])
        assert view["thoughts"] == THOUGHTS
        assert re.match(r"\d+ tokens · [\d.]+ tokens/s · first after [\d.]+ s$", view["facts"])
        assert view["atEnd"] is True


def test_what_is_written_as_markdown_is_shown_as_such(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["blocks"] == ["p", "h3", "ol", "div", "blockquote", "figure", "p"]
        assert view["code"] == CODE


def test_markup_of_a_model_stays_text(views: list[dict[str, Any]]) -> None:
    for view in views:
        assert view["made"] == 0
        assert view["hostile"] == HOSTILE


def test_settings_and_earlier_turns_are_sent(views: list[dict[str, Any]]) -> None:
    for view in views:
        first, second = view["asked"]
        assert first["temperature"] == second["temperature"] == 0.5
        assert first["reasoning_effort"] == "low"
        assert [message["role"] for message in first["messages"]] == ["system", "user"]
        roles = [message["role"] for message in second["messages"]]
        assert roles == ["system", "user", "assistant", "user"]
        assert second["messages"][2]["content"] == ANSWER


def test_a_new_chat_is_empty(views: list[dict[str, Any]]) -> None:
    assert [(view["left"], view["welcomed"]) for view in views] == [(0, True)] * 4


def test_every_part_has_a_name_for_those_who_do_not_see_it(views: list[dict[str, Any]]) -> None:
    for view in views:
        for part in (
            'textbox "Message"',
            'button "Send"',
            'button "New chat"',
            'button "Settings" [expanded]',
            'textbox "System prompt"',
            'combobox "Reasoning effort"',
            'spinbutton "Temperature"',
            'spinbutton "Longest answer"',
            'log "Conversation"',
            'heading "moon-and-sun',
        ):
            assert part in view["tree"], part
        assert view["focused"] == "message"


def test_stopping_frees_the_slot(seen: dict[str, Any]) -> None:
    stopped = seen["stopped"]
    assert stopped["active"] == [0, 0, 0]
    assert len(stopped["facts"]) == 2
    for facts in stopped["facts"]:
        assert facts.endswith(" · stopped")
        assert int(facts.partition(" ")[0]) < LONG_TOKENS
    assert "tokens/s" in stopped["after"]


def test_what_goes_wrong_is_one_line_and_nothing_written_is_lost(seen: dict[str, Any]) -> None:
    wrong = seen["wrong"]
    assert "\n" not in wrong["refused"]
    assert "tokens" in wrong["refused"]
    assert (wrong["kept"], wrong["turns"]) == (20_000, 0)
    assert wrong["invalid"].startswith("Temperature: ")
    assert (wrong["focused"], wrong["sent"]) == ("temperature", 0)


def test_a_key_is_asked_for_where_one_is_needed_and_kept_in_the_tab(seen: dict[str, Any]) -> None:
    locked = seen["locked"]
    assert locked["refused"] == "The server does not know this API key."
    assert locked["door"] is False
    assert locked["stored"] == [1, 0]
    assert "tokens/s" in locked["facts"]
    assert locked["elsewhere"] == []
