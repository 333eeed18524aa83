"""The JUnit form of a report: what readers of JUnit count, and texts of strangers as text."""

from xml.etree import ElementTree

import pytest

from gptoss_onnx.json_text import printable
from gptoss_onnx.validation.report.document import Report
from gptoss_onnx.validation.report.junit import COMPARED, to_junit
from support.sample_reports import HOSTILE, failing, hostile, not_judged, passing

Element = ElementTree.Element
RESULTS = ("failure", "error", "skipped")


def parsed(report: Report) -> Element:
    return ElementTree.fromstring(to_junit(report))


def case_of(root: Element, suite: str, name: str) -> Element:
    found = root.find(f"testsuite[@name='{suite}']/testcase[@name='{name}']")
    assert found is not None
    return found


def counted(element: Element) -> list[int]:
    return [int(element.attrib[name]) for name in ("tests", "failures", "errors", "skipped")]


def test_a_suite_for_each_column_and_one_for_the_comparisons() -> None:
    root = parsed(failing())
    names = [suite.attrib["name"] for suite in root]
    assert names == [COMPARED, "native", "portable", "ort", "node"]
    assert counted(root) == [30, 8, 1, 8]
    for suite in root:
        cases = suite.findall("testcase")
        found = [sum(case.find(kind) is not None for case in cases) for kind in RESULTS]
        assert counted(suite) == [len(cases), *found]


def test_a_failure_says_what_was_found_and_how_to_repeat_it() -> None:
    failure = case_of(parsed(failing()), "portable", "decode").find("failure")
    assert failure is not None
    assert failure.attrib["message"].startswith("max abs 3.1e-01 > 0.001, KL 2.4e-03 > 1e-06")
    assert "first divergence: layer 3, MoEDispatchMXFP4" in failure.attrib["message"]
    assert failure.text is not None
    assert "layer 3: relative error 1.2e-01, allowed 1.0e-04" in failure.text
    assert failure.text.endswith(
        "again: gptoss-onnx validate demo/package --reference demo/checkpoint --kernels portable"
    )


def test_refusals_are_errors_and_what_is_not_available_is_skipped() -> None:
    root = parsed(failing())
    error = case_of(root, "native", "ragged batch").find("error")
    assert error is not None
    assert "expected at most 2" in error.attrib["message"]
    skipped = case_of(root, "ort", "ragged batch").find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == "the manifest lists rewinding as not supported"
    accepted = case_of(root, "ort", "decode")
    assert [result.tag for result in accepted] == ["system-out"]
    assert all(
        case.find("skipped") is not None and case.attrib["classname"] == "node"
        for case in root.findall("testsuite[@name='node']/testcase")
    )


def test_findings_are_the_failure_of_a_comparison() -> None:
    failure = case_of(parsed(failing()), COMPARED, "graph").find("failure")
    assert failure is not None
    assert failure.attrib["message"] == (
        "layers.3 MoEDispatchMXFP4 alpha: 1.703125, expected 1.702"
    )
    assert failure.text is not None
    assert "row 7" in failure.text


def test_what_passed_has_no_results() -> None:
    root = parsed(passing())
    assert counted(root) == [15, 0, 0, 0]
    assert not [case for kind in RESULTS for case in root.iter(kind)]


def test_what_could_not_be_judged_is_an_error() -> None:
    root = parsed(not_judged())
    assert counted(root) == [1, 0, 1, 0]
    error = root.find("testsuite/testcase/error")
    assert error is not None
    assert error.attrib["message"] == "demo/package: manifest.json: not found"


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_strangers_stay_texts(text: str) -> None:
    plain = {element.tag for element in parsed(hostile("plain")).iter()}
    root = parsed(hostile(text))
    assert {element.tag for element in root.iter()} == plain
    values = [
        value for element in root.iter() for value in (*element.attrib.values(), element.text)
    ]
    assert all(len(value) < 40_000 for value in values if value)
    letters = "".join(filter(None, values)).replace("\n", "")
    assert letters == printable(letters)
    wanted = printable(" ".join(text.split()))[:20].replace("\uffff", "\ufffd")
    assert wanted.replace("\ufffe", "\ufffd") in letters
