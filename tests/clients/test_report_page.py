"""The page of a report as a browser shows it: on a desktop and on a phone, in light and dark, with
JavaScript and without.

The pictures stay in `build/clients/report`, for people to look at.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptoss_onnx.validation.report.html import to_html
from support.browser_client import ROOT, BrowserClient
from support.sample_reports import HOSTILE, failing, hostile, not_judged, passing

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(600)]

SCREENSHOTS = ROOT / "build" / "clients" / "report"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REPORTS = {
    "passed": passing(),
    "failed": failing(),
    "not-judged": not_judged(),
    **{f"hostile-{index}": hostile(text) for index, text in enumerate(HOSTILE)},
}


@pytest.fixture(scope="module")
def seen(browser: BrowserClient, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the browser saw of every page in every view."""
    folder = tmp_path_factory.mktemp("pages")
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    pages: list[Path] = []
    for name, report in REPORTS.items():
        pages.append(folder / f"{name}.html")
        pages[-1].write_text(to_html(report), encoding="utf-8")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, f"found none of {', '.join(BROWSERS)} on PATH"
    script = Path(__file__).with_name("report_page.mjs")
    result = browser.call("node", script, program, SCREENSHOTS, *pages)
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def test_every_page_was_seen_in_every_view(seen: list[dict[str, Any]]) -> None:
    assert len(seen) == 4 * 3 + 2 * len(HOSTILE)
    assert {entry["view"] for entry in seen} == {"desktop", "desktop-dark", "phone", "phone-dark"}
    for entry in seen:
        assert Path(entry["screenshot"]).read_bytes().startswith(b"\x89PNG")


def test_nothing_is_fetched_run_or_complained_about(seen: list[dict[str, Any]]) -> None:
    for entry in seen:
        found = (entry["console"], entry["requests"], entry["dialogs"])
        assert found == ([], [], 0), (entry["file"], entry["view"])


def test_no_page_scrolls_sideways(seen: list[dict[str, Any]]) -> None:
    wide = {(Path(it["file"]).name, it["view"]): it["overflow"] for it in seen if it["overflow"]}
    assert wide == {}


def test_it_can_be_used_without_scripts(seen: list[dict[str, Any]]) -> None:
    views = [entry for entry in seen if Path(entry["file"]).stem == "failed"]
    assert len(views) == 4
    for entry in views:
        assert entry["verdict"].startswith("✗ Failed")
        assert entry["rows"] == len(REPORTS["failed"].rows)
        assert entry["target"] is True
    passed = [entry for entry in seen if Path(entry["file"]).stem == "passed"]
    assert all((entry["open"], entry["opened"]) == (0, 1) for entry in passed)
