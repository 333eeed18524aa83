"""The documentation site, built strictly, as a browser shows it on a desktop and on a phone.

Some pictures stay in `build/clients/site`, for people to look at.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.browser_client import ROOT, BrowserClient

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(900)]

SCREENSHOTS = ROOT / "build" / "clients" / "site"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Quiet(SimpleHTTPRequestHandler):
    """A server of files that writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, but into a folder of its own."""
    folder = tmp_path_factory.mktemp("site") / "site"
    mkdocs = Path(sys.executable).with_name("mkdocs")
    command = [str(mkdocs), "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (built.returncode, built.stdout, built.stderr) == (0, "", "")
    return folder


@pytest.fixture(scope="module")
def names(site: Path) -> list[str]:
    """The pages of the site."""
    found = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    return [name for name in found if name != "404.html"]


@pytest.fixture(scope="module")
def url(site: Path) -> Iterator[str]:
    """Where the site is served."""
    handler = functools.partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def seen(browser: BrowserClient, url: str, names: list[str]) -> list[dict[str, Any]]:
    """What the browser saw of every page in every view."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, f"found none of {', '.join(BROWSERS)} on PATH"
    script = Path(__file__).with_name("site_pages.mjs")
    result = browser.call("node", script, program, url, SCREENSHOTS, *names)
    assert result.returncode == 0, result.stderr
    return list(json.loads(result.stdout))


def test_every_page_has_a_heading(seen: list[dict[str, Any]], names: list[str]) -> None:
    pages = [entry for entry in seen if entry["page"] != "search"]
    assert len(pages) == 2 * len(names)
    assert len(names) > 60
    assert [entry["page"] for entry in pages if not entry["heading"].strip()] == []


def test_nothing_comes_from_outside_or_fails(seen: list[dict[str, Any]]) -> None:
    for entry in seen:
        found = (entry["console"], entry["outside"], entry["failed"])
        assert found == ([], [], []), (entry["page"], entry["view"])


def test_no_page_scrolls_sideways(seen: list[dict[str, Any]]) -> None:
    pages = [entry for entry in seen if entry["page"] != "search"]
    assert {(it["page"], it["view"]): it["overflow"] for it in pages if it["overflow"]} == {}


def test_the_search_finds(seen: list[dict[str, Any]]) -> None:
    searches = [entry for entry in seen if entry["page"] == "search"]
    assert {entry["view"] for entry in searches} == {"desktop", "phone"}
    assert all(entry["hits"] > 3 for entry in searches)
