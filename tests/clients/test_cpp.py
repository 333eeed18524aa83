"""The C++ client: its verdict, and its tokens against the Python session's."""

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptoss_onnx.exporter import Package, export
from gptoss_onnx.runtime import Session
from support.cpp_client import Client, run
from support.tolerances import CLIENT_LOGITS

pytestmark = [pytest.mark.cpp, pytest.mark.clients]

PROMPT = [1428, 304, 258, 269, 352, 351, 968, 11, 282, 330]  # It was a bright morning, and she
IDS = ",".join(map(str, PROMPT))
GREEDY = 64
VOCAB = 2048


@pytest.fixture(scope="session")
def packages(
    demo_package: Package, demo_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The demo checkpoint with each type of KV cache."""
    folder = tmp_path_factory.mktemp("kv")
    narrow = {
        dtype: export(demo_checkpoint, folder / dtype, weights="copy", kv_dtype=dtype).folder
        for dtype in ("float16", "bfloat16")
    }
    return {"float32": demo_package.folder, **narrow}


def random_tokens(count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(3).integers(0, VOCAB, count)]


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_verify_passes_on_the_demo_package(
    client: Client, demo_package: Package, kernels: str
) -> None:
    result = client.run(demo_package.folder, "--verify", "--json", "--kernels", kernels)
    assert result.code == 0, result.out + result.err
    verdict = result.json
    cases = verdict.pop("cases")
    assert verdict.pop("seconds") > 0
    assert verdict.pop("runtime").startswith("onnxruntime 1.")
    assert verdict == {
        "format": "gptoss-onnx-verdict",
        "format_version": 1,
        "passed": True,
        "client": "cpp",
        "package": str(demo_package.folder),
        "target": "portable",
        "kernels": kernels,
        "activations": "exact",
        "limit": 0.001,
    }
    golden = json.loads((demo_package.folder / "golden" / "golden.json").read_text())
    assert [case["name"] for case in cases] == [case["name"] for case in golden["cases"]]
    for case, expected in zip(cases, golden["cases"], strict=True):
        assert case["passed"] is True
        assert case["note"] == ""
        assert case["positions"] == len(expected["positions"])
        assert case["greedy_equal"] == case["greedy_tokens"] == len(expected["greedy"])
        assert 0 < case["max_abs"] <= verdict["limit"]
        assert 0 < case["logsumexp_abs"] <= verdict["limit"]


def test_verify_prints_lines_for_people(client: Client, spoilt: Path) -> None:
    """Without --json: a table, its columns in line, and a last line that says how it ended."""
    path = spoilt / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    for case in golden["cases"]:
        case["name"] = f"\033[2J{case['name']}é"
    golden["cases"][1]["greedy"][3] += 1
    path.write_text(json.dumps(golden))
    result = client.run(spoilt, "--verify")
    assert (result.code, result.err) == (1, "")
    head, *rows, last = result.out.splitlines()
    count = len(golden["cases"])
    assert len(rows) == count
    assert all(line.isprintable() for line in (head, *rows, last))
    assert head.split() == [
        "case",
        "positions",
        "max",
        "abs",
        "logsumexp",
        "greedy",
        "tokens",
        "verdict",
    ]
    verdicts = ["FAILED" if index == 1 else "ok" for index in range(count)]
    assert [row[head.index("verdict") :] for row in rows] == verdicts
    assert "3 of" in rows[1]
    assert last.startswith(f"FAIL: 1 of {count} cases failed (native kernels, exact, limit 0.001; ")
    golden["cases"][1]["greedy"][3] -= 1
    path.write_text(json.dumps(golden))
    passed = client.run(spoilt, "--verify").out.splitlines()
    assert passed[-1].startswith(f"PASS: {count} cases (native kernels, exact, limit 0.001; ")


@pytest.mark.parametrize(
    ("field", "value"),
    [("top_logits", [[9.0]]), ("sampled_logits", [[9.0]]), ("logsumexp", [9.0]), ("greedy", [7])],
)
def test_a_wrong_number_anywhere_fails_its_case_alone(
    client: Client, spoilt: Path, field: str, value: list[Any]
) -> None:
    path = spoilt / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    wrong = next(case for case in golden["cases"] if case["name"] == "one-token")
    if isinstance(value[0], list):
        wrong[field][0][3] = value[0][0]
    else:
        wrong[field][0] = value[0]
    path.write_text(json.dumps(golden))
    result = client.run(spoilt, "--verify", "--json")
    assert result.code == 1
    assert result.json["passed"] is False
    assert [case["name"] for case in result.json["cases"] if not case["passed"]] == ["one-token"]


def test_logits_that_are_not_numbers_fail_the_verdict(client: Client, spoilt: Path) -> None:
    path = spoilt / "model.safetensors"
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack_from("<Q", data)
    begin, end = json.loads(data[8 : 8 + size])["model.norm.weight"]["data_offsets"]
    data[8 + size + begin : 8 + size + end] = b"\xc0\x7f" * ((end - begin) // 2)  # bfloat16 NaN
    path.write_bytes(data)
    result = client.run(spoilt, "--verify", "--json")
    assert result.code == 1
    for case in result.json["cases"]:
        assert case["passed"] is False
        assert case["max_abs"] is None  # JSON has no NaN
        assert case["greedy_equal"] == 0
        assert "finite" in case["note"]


@pytest.mark.parametrize("kernels", ["native", "portable"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_greedy_tokens_are_those_of_the_python_session(
    client: Client, packages: dict[str, Path], dtype: str, kernels: Any
) -> None:
    found = client.generate(
        packages[dtype], PROMPT, "--max-new-tokens", str(GREEDY), "--kernels", kernels
    )
    with Session.open(packages[dtype], kernels=kernels, threads=1) as session:
        generation = session.generate(PROMPT, max_new_tokens=GREEDY)
        expected = list(generation)
    assert found["tokens"] == expected
    assert found["finish_reason"] == generation.finish_reason
    assert found["kernels"] == kernels
    assert found["timings"]["prompt_tokens"] == len(PROMPT)
    assert found["timings"]["new_tokens"] == len(expected)


@pytest.mark.parametrize("activations", ["bf16", "int8"])
def test_activations_reach_the_kernels(
    client: Client, demo_package: Package, activations: Any
) -> None:
    words = ("--max-new-tokens", "24", "--activations", activations)
    found = client.generate(demo_package.folder, PROMPT, *words)
    with Session.open(demo_package.folder, activations=activations, threads=1) as session:
        assert found["tokens"] == list(session.generate(PROMPT, max_new_tokens=24))
    assert found["activations"] == activations
    verdict = client.run(
        demo_package.folder, "--verify", "--json", "--activations", activations
    ).json
    assert verdict["passed"] is False  # lossy, and the verdict sees it


@pytest.mark.parametrize(("chunk", "first"), [(512, 0), (1, 0), (7, 0), (48, 50), (7, 90)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_chunks_and_calls_may_be_cut_anywhere(
    client: Client, packages: dict[str, Path], dtype: str, chunk: int, first: int
) -> None:
    tokens = random_tokens(150)  # the window is 32
    found = client.score(packages[dtype], tokens, chunk, first, VOCAB)
    with Session.open(packages[dtype], threads=1) as session:
        expected = session.score(tokens, chunk=chunk)
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLIENT_LOGITS[dtype])


@pytest.mark.parametrize(
    ("positions", "tokens", "line"),
    [
        ("0,2", ["1", "2", "3"], "accepted"),
        (
            "3",
            ["1", "2", "3"],
            "positions: found 3, expected ascending ones, each of the 3 tokens from 0 on",
        ),
        ("-1", ["1"], "positions: found -1, expected ascending ones"),
        ("1,1", ["1", "2"], "positions: found 1, expected ascending ones"),
        ("1,0", ["1", "2"], "positions: found 0, expected ascending ones"),
        ("9223372036854775807", ["1"], "positions: found 9223372036854775807, expected ascending"),
        ("0", [], "prompt: found no tokens, expected at least one"),
        ("0", ["1"] * 65, "prompt: found 65 tokens, expected at most 64, the room in the cache"),
        ("0", ["2048"], "prompt: found token 2048, expected 0 to 2047"),
    ],
)
def test_forward_checks_what_it_is_given(
    client: Client, demo_package: Package, positions: str, tokens: list[str], line: str
) -> None:
    result = run(client.probe, "forward", demo_package.folder, client.library, positions, *tokens)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(line)


def test_caches_of_one_session_run_at_the_same_time(client: Client, demo_package: Package) -> None:
    words = (demo_package.folder, client.library, "40", "4", *map(str, PROMPT))
    result = run(client.probe, "race", *words)
    assert result.code == 0, result.err
    expected = client.generate(demo_package.folder, PROMPT, "--max-new-tokens", "40")["tokens"]
    assert [list(map(int, line.split())) for line in result.out.splitlines()] == [expected] * 4


def test_tokens_are_streamed_as_ids(client: Client, demo_package: Package) -> None:
    result = client.run(demo_package.folder, "--prompt-tokens", IDS, "--max-new-tokens", "5")
    tokens = client.generate(demo_package.folder, PROMPT, "--max-new-tokens", "5")["tokens"]
    assert result.out == ",".join(map(str, tokens)) + "\n"
    assert result.err == f"native kernels ({client.library}), exact\n"


def test_it_ends_at_the_stop_token_the_capacity_or_the_count(client: Client, spoilt: Path) -> None:
    tokens = client.generate(spoilt, PROMPT, "--max-new-tokens", "12")["tokens"]
    (spoilt / "generation_config.json").write_text(json.dumps({"eos_token_id": [tokens[7]]}))
    stopped = client.generate(spoilt, PROMPT, "--max-new-tokens", "12")
    assert (stopped["tokens"], stopped["finish_reason"]) == (
        tokens[: tokens.index(tokens[7]) + 1],
        "stop",
    )
    (spoilt / "generation_config.json").write_text(json.dumps({"eos_token_id": tokens[7]}))
    assert client.generate(spoilt, PROMPT, "--max-new-tokens", "12") | {"timings": 0} == stopped | {
        "timings": 0
    }
    (spoilt / "generation_config.json").unlink()  # the model's own: not among these
    assert client.generate(spoilt, PROMPT, "--max-new-tokens", "12")["finish_reason"] == "length"
    full = client.generate(
        spoilt, PROMPT, "--max-new-tokens", "12", "--capacity", str(len(PROMPT) + 4)
    )
    # the last one needs no room
    assert (full["tokens"], full["finish_reason"]) == (tokens[:5], "length")


def test_weights_by_reference_are_read_where_they_lie(
    client: Client, demo_checkpoint: Path, tmp_path: Path
) -> None:
    checkpoint = Path(shutil.copytree(demo_checkpoint, tmp_path / "checkpoint"))
    package = export(checkpoint, tmp_path / "package", weights="reference").folder
    assert not list(package.glob("*.safetensors"))
    result = client.run(package, "--verify")
    assert result.code == 0, result.err
    os.utime(checkpoint / "model.safetensors")
    refused = client.run(package, "--verify")
    assert refused.code == 2
    assert "modification time" in refused.err
    (checkpoint / "model.safetensors").unlink()
    assert "no such file" in client.run(package, "--verify").err


def test_the_library_beside_the_program_is_found(
    client: Client, demo_package: Package, tmp_path: Path
) -> None:
    program = shutil.copy(client.program, tmp_path)
    alone = run(program, demo_package.folder, "--verify", "--json")
    assert alone.json["kernels"] == "portable"
    (tmp_path / client.library.name).symlink_to(client.library)
    assert run(program, demo_package.folder, "--verify", "--json").json["kernels"] == "native"


def test_it_never_opens_a_socket(client: Client, demo_package: Package, tmp_path: Path) -> None:
    source = tmp_path / "no_network.c"
    source.write_text(
        "#include <stdlib.h>\nint socket(int a, int b, int c) { (void)a, (void)b, (void)c; "
        "abort(); }\n"
    )
    shim = tmp_path / "no_network.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source], check=True)
    python = "import socket; socket.socket()"
    environment = {"LD_PRELOAD": str(shim)}
    assert run("python3", "-c", python, env=environment).code != 0  # the shim works
    assert client.run(demo_package.folder, "--verify", env=environment).code == 0
