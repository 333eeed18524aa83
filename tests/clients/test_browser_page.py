"""The page of the browser client, as a person uses it and as strangers' packages may want it."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from gptoss_onnx.runtime import Sampling, Session
from support.browser_client import ROOT, BrowserClient

pytestmark = [pytest.mark.browser, pytest.mark.clients, pytest.mark.timeout(600)]

SCREENSHOT = ROOT / "build" / "clients" / "browser.png"
PROMPT = "It was a bright morning, and she"


def _changed(document: Any, change: Callable[[Any], None]) -> str:
    changed = json.loads(json.dumps(document))
    change(changed)
    return json.dumps(changed)


def test_files_of_strangers_end_in_one_line_of_the_page(
    browser: BrowserClient, demo_package: Any
) -> None:
    """The page may have another server, so it checks what `serve.mjs` would refuse."""
    folder = demo_package.folder
    manifest, golden, tokenizer = (
        json.loads((folder / name).read_text())
        for name in ("manifest.json", "golden/golden.json", "tokenizer.json")
    )
    markup = "<img src=x onerror=alert(1)>"
    slow = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    spoilt: list[tuple[dict[str, Any], str, str]] = [
        ({"path": "manifest.json", "body": "["}, "failed", "/package/manifest.json: found no JSON"),
        ({"path": "manifest.json", "body": "[" * 100_000}, "failed", "nested more than 100 deep"),
        ({"path": "manifest.json", "body": "1" * 5000}, "failed", "a number of 5000 digits"),
        (
            {"path": "manifest.json", "body": " " * 16_000_001},
            "failed",
            "bytes: found more than 16000000, expected",
        ),
        (
            {
                "path": "manifest.json",
                "body": _changed(manifest, lambda it: it.update(target=f"{markup}\u001b[2J\n")),
            },
            "failed",
            f"manifest.json: target: found {markup}\\u001b[2J\\u000a, expected portable or ort",
        ),
        (
            {
                "path": "manifest.json",
                "body": _changed(manifest, lambda it: it["cache"][0].update(kv_heads=-1)),
            },
            "failed",
            "manifest.json: cache[0].kv_heads: found -1, expected an integer",
        ),
        (
            {
                "path": "manifest.json",
                "body": _changed(manifest, lambda it: it["cache"][0].update(head_dim=64)),
            },
            "ready",
            "model.onnx: ONNX Runtime cannot run it (",
        ),
        ({"path": "model.onnx", "body": "\u00ff" * 400_000}, "failed", "model.onnx: found "),
        (
            {"path": "model.safetensors", "body": "x" * 4_020_017},
            "failed",
            "bytes: found more than 4020016, expected",
        ),
        (
            {"path": "model.safetensors", "body": "x" * 4_020_016},
            "failed",
            "model.safetensors: safetensors header",
        ),
        (
            {"path": "tokenizer.json", "body": "{}"},
            "failed",
            "tokenizer.json: the tokenizer library cannot read it (",
        ),
        (
            {"path": "generation_config.json", "body": "[]"},
            "failed",
            "generation_config.json: found a list of 0",
        ),
        (
            {"path": "generation_config.json", "body": '{"eos_token_id": -1}'},
            "failed",
            "eos_token_id: found -1, expected",
        ),
        (
            {"path": "golden/golden.json", "body": "{}"},
            "ready",
            "golden.json: format: found nothing",
        ),
        (
            {
                "path": "golden/golden.json",
                "body": _changed(golden, lambda it: it["cases"][0]["greedy"].append(9999)),
            },
            "ready",
            "golden.json: cases[0].greedy[64]: found 9999, expected token ids, 0 to 2047",
        ),
        (
            {
                "path": "tokenizer.json",
                "body": _changed(tokenizer, lambda it: it.update(pre_tokenizer=slow)),
                "click": "Generate",
                "prompt": "a" * 60 + "!",
            },
            "failed",
            "tokenizer.json: cannot encode the prompt in time: found no end within 10 s",
        ),
    ]
    for case, state, _ in spoilt:
        if state == "ready":
            case.setdefault("click", "Verify")
    answers = browser.strange(folder, [case for case, _, _ in spoilt])
    for (case, state, says), answer in zip(spoilt, answers, strict=True):
        assert answer["state"] == state, (case["path"], answer)
        assert says in answer["error"], case["path"]
        assert "\n" not in answer["error"]
        assert answer["thrown"] == []
        assert answer["foreign"] == 0


def test_what_strangers_call_things_is_shown_as_text(
    browser: BrowserClient, demo_package: Any
) -> None:
    golden = json.loads((demo_package.folder / "golden" / "golden.json").read_text())
    markup = "<img src=x onerror=alert(1)>"
    golden["cases"] = [{**golden["cases"][0], "name": markup}]
    case = {"path": "golden/golden.json", "body": json.dumps(golden), "click": "Verify"}
    (answer,) = browser.strange(demo_package.folder, [case])
    assert (answer["state"], answer["error"], answer["thrown"]) == ("ready", "", [])
    assert markup in answer["cases"]
    assert answer["foreign"] == 0


def test_a_package_without_stop_tokens_says_so(browser: BrowserClient, demo_package: Any) -> None:
    case = {"path": "generation_config.json", "body": '{"eos_token_id": []}'}
    (answer,) = browser.strange(demo_package.folder, [case])
    assert "no stop tokens: a text ends after the new tokens asked for" in answer["facts"]


def test_what_is_typed_into_the_form_is_checked(browser: BrowserClient, demo_package: Any) -> None:
    typed = [
        ("New tokens", "", "tokens to generate: found nothing, expected an integer above 0"),
        ("New tokens", "1e400", "tokens to generate: found NaN"),
        ("New tokens", "0", "tokens to generate: found 0"),
        ("New tokens", "1.5", "tokens to generate: found 1.5"),
        (
            "New tokens",
            "9999999",
            "capacity in tokens: found 10000009, expected an integer, 1 to 1024",
        ),
        ("Temperature", "", "temperature: found nothing, expected a finite number, 0 or more"),
        ("Temperature", "-1", "temperature: found -1"),
        ("Temperature", "1e400", "temperature: found NaN"),
        ("Temperature", "e", "temperature: found NaN"),
        ("Top-k", "1.5", "top-k: found 1.5, expected an integer, 0 (off) or more"),
        ("Top-k", "", "top-k: found nothing"),
        ("Top-p", "0", "top-p: found 0, expected a number above 0, at most 1"),
        ("Min-p", "", "min-p: found nothing, expected a number from 0 to 1"),
        (
            "Repetition penalty",
            "0",
            "repetition penalty: found 0, expected a finite number above 0",
        ),
        ("Seed", "-", "seed: found NaN, expected an integer, 0 or more, or none"),
    ]
    cases = [
        {"path": "", "body": None, "click": "Generate", "prompt": PROMPT, "fields": {label: value}}
        for label, value, _ in typed
    ]
    cases.append({"path": "", "body": None, "click": "Generate", "prompt": "", "fields": {}})
    cases.append(
        {
            "path": "",
            "body": None,
            "click": "Generate",
            "prompt": PROMPT,
            "fields": {"Temperature": "1e-46", "New tokens": "8"},
        }
    )
    *answers, empty, tiny = browser.strange(demo_package.folder, cases)
    for (label, value, says), answer in zip(typed, answers, strict=True):
        assert (answer["state"], answer["thrown"]) == ("ready", []), (label, value)
        assert says in answer["error"], (label, value)
    assert empty["error"].startswith("prompt: found no tokens")
    # So low a temperature leaves the most probable token alone.
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(
            session.generate(session.tokenizer.encode(PROMPT), Sampling(), max_new_tokens=8)
        )
        assert tiny["text"] == session.tokenizer.decode(expected)


def test_without_a_tokenizer_the_prompt_is_token_ids(
    browser: BrowserClient, tiny_package: Any
) -> None:
    seen = browser.drive(tiny_package.folder, "1, 2 3", tiny_package.folder.parent / "ids.png")
    with Session.open(tiny_package.folder, threads=1) as session:
        expected = list(session.generate([1, 2, 3], Sampling(), max_new_tokens=64))
    assert [int(token) for token in seen["generated"]["text"].split()] == expected


def test_the_page_as_a_person_uses_it(browser: BrowserClient, demo_package: Any) -> None:
    SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
    SCREENSHOT.unlink(missing_ok=True)
    seen = browser.drive(demo_package.folder, PROMPT, SCREENSHOT)
    with Session.open(demo_package.folder, threads=1) as session:
        expected = list(
            session.generate(session.tokenizer.encode(PROMPT), Sampling(), max_new_tokens=64)
        )
        assert seen["generated"]["text"] == session.tokenizer.decode(expected)
    texts = seen["generated"]["texts"]
    assert len(set(texts)) > 32  # streamed, not shown at once
    assert all(longer.startswith(shorter) for shorter, longer in pairwise(texts))
    assert "64 tokens · " in seen["generated"]["speed"]
    assert float(seen["generated"]["speed"].split(" · ")[1].removesuffix(" tokens/s")) > 0
    assert seen["verified"].startswith("Passed in ")
    assert "stopped" in seen["stopped"]
    assert int(seen["stopped"].split()[0]) < 900
    assert seen["console"] == []
    assert seen["threads"] is True
    assert [url for url in seen["requests"] if not url.startswith(seen["url"])] == []
    assert SCREENSHOT.read_bytes().startswith(b"\x89PNG")
