"""What operators see: metrics, the access log, and settings that are refused."""

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gptoss_onnx.errors import InputError
from gptoss_onnx.serving.metrics import ServerMetrics
from gptoss_onnx.serving.settings import ServerSettings
from support.served import Served, wait_until

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
Sample = tuple[str, tuple[tuple[str, str], ...]]


def metrics(server: Served) -> dict[Sample, float]:
    """Return the samples of a server, by name and labels."""
    answer = httpx.get(f"{server.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_count_what_happened(server: Served) -> None:
    before = metrics(server)
    said = httpx.post(f"{server.url}{CHAT}", json=BODY).json()["usage"]["completion_tokens"]
    httpx.post(f"{server.url}{CHAT}", json={})
    httpx.get(f"{server.url}/v1/wp-admin")
    after = metrics(server)

    def grown(name: str, **labels: str) -> float:
        sample = (name, tuple(sorted(labels.items())))
        return after[sample] - before.get(sample, 0)

    assert grown("gptoss_requests_total", endpoint=CHAT, status="200") == 1
    assert grown("gptoss_requests_total", endpoint=CHAT, status="400") == 1
    assert grown("gptoss_requests_total", endpoint="other", status="404") == 1
    assert grown("gptoss_generated_tokens_total") == said
    assert grown("gptoss_time_to_first_token_seconds_count") == 1
    assert grown("gptoss_time_per_token_seconds_count") >= said - 1
    assert after[("gptoss_slots", ())] == 4
    assert after[("gptoss_queue", ())] == 0
    assert after[("gptoss_slots_active", ())] == 0
    assert after[("gptoss_requests_active", ())] == 0  # who asks is not counted
    assert ("gptoss_prefix_hits_total", ()) in after


def test_servers_of_a_process_count_for_themselves(serve: Callable[..., Served]) -> None:
    one, other = serve(), serve()
    httpx.get(f"{one.url}/v1/models")
    sample = ("gptoss_requests_total", (("endpoint", "/v1/models"), ("status", "200")))
    assert metrics(one)[sample] == 1
    assert sample not in metrics(other)


def test_access_log(serve: Callable[..., Served], caplog: pytest.LogCaptureFixture) -> None:
    served = serve(access_log=True, api_keys=("secret-key",))
    headers = {"authorization": "Bearer secret-key"}
    with caplog.at_level(logging.INFO, "gptoss_onnx.serving.access"):
        answer = httpx.post(f"{served.url}{CHAT}?q=secret", json=BODY, headers=headers)
        httpx.get(f"{served.url}/v1/models")
        wait_until(lambda: len(lines(caplog)) == 2)
    first, second = lines(caplog)
    assert first["id"] == answer.headers["x-request-id"]
    assert (first["method"], first["path"], first["status"]) == ("POST", CHAT, 200)
    assert first["complete"] is True and first["seconds"] > 0
    assert first["client"] == "127.0.0.1"
    assert second["status"] == 401 and second["id"] != first["id"]
    assert "secret" not in json.dumps([first, second])
    assert not [record for record in caplog.records if record.name == "uvicorn.access"]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        json.loads(record.message)
        for record in caplog.records
        if record.name == "gptoss_onnx.serving.access"
    ]


def test_no_log_without_the_option(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "gptoss_onnx.serving.access"):
        httpx.get(f"{server.url}/health")
    assert lines(caplog) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": "a\nb"},
        {"api_keys": ("",)},
        {"api_keys": ("a b",)},
        {"api_keys": ("schlüssel",)},
        {"max_body_bytes": 0},
        {"body_seconds": -1.0},
    ],
    ids=str,
)
def test_settings_that_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"^\w+: found "):
        ServerSettings(**{"model": "demo", **wrong})


def test_keys_stay_out_of_messages() -> None:
    with pytest.raises(InputError) as caught:
        ServerSettings(model="demo", api_keys=("top secret",))
    assert "top" not in str(caught.value)


def test_observers_take_what_the_engine_tells() -> None:
    told = ServerMetrics()
    told.first_token(0.5)
    told.prefill(0.25, 64)
    told.step(0.01, 3)
    told.finished("stop", prompt_tokens=1, cached_tokens=0, generated_tokens=2, seconds=3.0)
    text = told.text().decode()
    assert "gptoss_time_to_first_token_seconds_sum 0.5" in text
    assert "gptoss_prefill_seconds_total 0.25" in text
