"""The JSON form of a report: valid by its schema, and read back as it was."""

import dataclasses
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest

from gptoss_onnx.errors import InputError
from gptoss_onnx.json_text import read_json_object
from gptoss_onnx.validation import report as room
from gptoss_onnx.validation.judging import limits, metrics, outcome
from gptoss_onnx.validation.report import document as forms
from gptoss_onnx.validation.report.document import FORMAT, FORMAT_VERSION, Report
from support.sample_reports import HOSTILE, failing, hostile, not_judged, passing

SCHEMA: dict[str, Any] = json.loads(files(room).joinpath("schema.json").read_text())
DERIVED = {"format", "format_version", "passed", "exit_code"}  # of the document alone
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
REPORTS: dict[str, Callable[[], Report]] = {
    "passed": passing,
    "failed": failing,
    "not judged": not_judged,
    **{f"hostile {index}": lambda text=text: hostile(text) for index, text in enumerate(HOSTILE)},
}


def test_the_schema_is_one() -> None:
    VALIDATOR.check_schema(SCHEMA)


@pytest.mark.parametrize("make", REPORTS.values(), ids=REPORTS.keys())
def test_reports_are_valid_and_read_back_as_they_were(
    make: Callable[[], Report], tmp_path: Path
) -> None:
    report = make()
    path = report.write(tmp_path)
    text = path.read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    VALIDATOR.validate(document)
    if "\ud800" in report.package:  # half of a pair is no text for a file
        with pytest.raises(InputError, match="surrogates not allowed"):
            read_json_object(path, InputError)
        return
    back = Report.from_json(read_json_object(path, InputError))
    assert repr(back) == repr(report)  # NaN is not equal to itself


@pytest.mark.parametrize(
    ("make", "code", "passed"), [(passing, 0, True), (failing, 1, False), (not_judged, 2, False)]
)
def test_the_exit_code_is_in_the_document(
    make: Callable[[], Report], code: int, passed: bool
) -> None:
    document = make().to_json()
    assert (document["exit_code"], document["passed"]) == (code, passed)
    assert (document["error"] is not None) == (code == 2)


def test_numbers_that_json_lacks_are_named() -> None:
    cell = failing().to_json()["cells"][4]
    assert cell["difference"]["max_abs"] == "Infinity"
    assert cell["difference"]["mean_abs"] == "NaN"
    assert cell["by_position"][100:102] == ["NaN", "Infinity"]


KINDS: dict[str, Any] = {
    **{
        name: getattr(forms, name)
        for name in ("Column", "Row", "Cell", "LayerError", "Divergence", "Comparison", "Finding")
    },
    "Difference": metrics.Difference,
    "Tie": outcome.Tie,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_in_the_schema_and_nothing_else(kind: str) -> None:
    names = {field.name for field in dataclasses.fields(KINDS[kind])}
    part = SCHEMA["$defs"][kind]
    assert set(part["properties"]) == set(part["required"]) == names
    assert part["additionalProperties"] is False


def test_the_document_has_the_fields_of_the_report_and_its_head() -> None:
    names = {field.name for field in dataclasses.fields(Report)} | DERIVED
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == names
    assert SCHEMA["properties"]["format_version"]["const"] == FORMAT_VERSION
    assert SCHEMA["properties"]["format"]["const"] == FORMAT
    assert set(SCHEMA["$defs"]["Limits"]["required"]) <= {
        field.name for field in dataclasses.fields(limits.Limits)
    }


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda document: document.__setitem__(key, value)


SPOILT: dict[str, Callable[[dict[str, Any]], object]] = {
    "another version": _set("format_version", 1),
    "a missing field": lambda document: document.pop("seed"),
    "a field too many": _set("more", 1),
    "a text for a list": _set("cells", "abc"),
    "a state that is none": lambda document: document["cells"][0].update(state="fine"),
    "a number that is none": lambda document: document["cells"][0].update(seconds="Nan"),
    "a truth for a number": lambda document: document["cells"][0].update(seconds=True),
    "a number for a text": lambda document: document["cells"][0].update(note=1),
    "a list for an object": lambda document: document.update(machine=[]),
    "a list of texts for rows": lambda document: document.update(rows=["a"]),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT.keys())
def test_documents_that_are_no_reports_are_refused(
    spoil: Callable[[dict[str, Any]], object],
) -> None:
    document = failing().to_json()
    spoil(document)
    with pytest.raises(InputError) as caught:
        Report.from_json(document)
    assert str(caught.value).isprintable()


def test_a_report_that_nothing_failed_in_but_nothing_was_judged_in_is_not_judged() -> None:
    report = dataclasses.replace(passing(), cells=())
    assert (report.exit_code, report.passed) == (2, False)
