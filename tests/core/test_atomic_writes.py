"""What is written into a folder of a stranger stays in it."""

import os
from pathlib import Path

from gptoss_onnx.files import write_atomically


def test_a_link_in_place_of_the_temporary_file_is_not_written_through(tmp_path: Path) -> None:
    """`validate` writes its report into a package, which can hold links of the names that it will
    use.
    """
    (tmp_path / "precious").write_text("precious")
    (tmp_path / f".report.json.{os.getpid()}.tmp").symlink_to(tmp_path / "precious")
    write_atomically(tmp_path / "report.json", b"{}")
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "report.json").read_text() == "{}"


def test_a_link_in_place_of_the_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "report.json").symlink_to("precious")
    write_atomically(tmp_path / "report.json", b"{}")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "report.json").is_symlink()
