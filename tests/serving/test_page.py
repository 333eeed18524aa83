"""The chat page as it is sent: whole, and with nothing from outside, as its policy says."""

import re
from importlib.resources import files

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gptoss_onnx.serving.page.routes import page_routes

FOLDER = files("gptoss_onnx.serving.page")
NAMES = sorted(
    file.name for file in FOLDER.iterdir() if file.name.endswith((".html", ".css", ".mjs"))
)
# What stands in a comment or a type is fetched by nobody.
REFERENCE = re.compile(
    r"""(?:href|src)="([^"]+)"|^import .* from "([^"]+)";|url\(([^)]+)\)""", re.M
)


@pytest.fixture(scope="module")
def client() -> TestClient:
    """The page's routes alone, and a path below which nothing else is served."""
    return TestClient(Starlette(routes=page_routes()))


def test_the_page_says_that_nothing_else_may_run_or_be_fetched(client: TestClient) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1)
        for part in response.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect")} == {"'self'"}
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_served_as_what_it_is(client: TestClient, name: str) -> None:
    response = client.get("/" if name == "index.html" else f"/page/{name}")
    kinds = {"html": "text/html", "css": "text/css", "mjs": "text/javascript"}
    assert response.content == (FOLDER / name).read_bytes()
    assert response.headers["content-type"].startswith(kinds[name.rpartition(".")[2]])


def test_what_the_files_name_is_served_here(client: TestClient) -> None:
    found = {}
    for name in NAMES:
        text = (FOLDER / name).read_text(encoding="utf-8")
        base = "/" if name == "index.html" else "/page/"
        for names in REFERENCE.findall(text):
            link = next(filter(None, names))
            if link != "data:,":
                found[base + link.removeprefix("./")] = name
    assert {"/page/page.mjs", "/page/page.css", "/page/answer.mjs"} <= found.keys()
    assert {path: client.get(path).status_code for path in found} == dict.fromkeys(found, 200)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_asks_anybody_else_or_runs_text(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|//[a-z]+\.[a-z]", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|onclick", text
    )


@pytest.mark.parametrize(
    "path", ["/page/", "/page/routes.py", "/page/../run.py", "/page/index.html"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_it_is_only_read(client: TestClient) -> None:
    assert client.post("/").status_code == 405
    assert client.head("/").status_code == 200
