"""Every block of commands in the documents is run, or says what runs it, or why nothing does."""

import re
import tomllib

import click
import pytest

from gptoss_onnx.cli import main
from support.doc_blocks import ROOT, Block, all_blocks, own_command_lines, pages, read

KNOWN = {
    *("sh", "console", "python", "text", "json", "yaml", "ini", "nginx", "dockerfile"),
    *("cpp", "js", "csharp", "java", "rust", "go", "onnx"),
}
BLOCKS = list(all_blocks())
COMMANDS = [block for block in BLOCKS if block.is_command]


def said(block: Block, what: str) -> str:
    return block.said.removeprefix(what).strip() if block.said.startswith(what) else ""


def test_every_block_says_its_language() -> None:
    """A block that is indented, or has no language, would slip past the tests here."""
    assert {block.place: block.language for block in BLOCKS if block.language not in KNOWN} == {}
    indented = []
    for page in pages():
        text = re.sub(r"^```.*?^```$", "", read(page), flags=re.MULTILINE | re.DOTALL)
        for before, line in re.findall(r"^(\S[^\n]*)\n\n    (\S[^\n]*)", text, re.MULTILINE):
            if not re.match(r"[-*] |\d+\. ", before):
                indented.append((page, line))
    assert indented == []


def test_comments_say_something_known() -> None:
    known = re.compile(r"prints$|run by \S|not run: \S.{9}")
    assert [block.place for block in BLOCKS if block.said and not known.match(block.said)] == []
    printing = [block for block in BLOCKS if block.said == "prints"]
    assert len(printing) > 5
    assert all(block.language == "python" for block in printing)


def test_what_is_run_elsewhere_names_tests_that_exist() -> None:
    named = [(block.place, path) for block in BLOCKS for path in said(block, "run by").split()]
    assert len(named) > 10
    assert [(place, path) for place, path in named if not (ROOT / path).is_file()] == []


def test_most_blocks_are_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Those that are not are few; -s lists them with their reasons."""
    apart = [block for block in COMMANDS if said(block, "not run:")]
    with capsys.disabled():
        for block in apart:
            print(f"\n{block.place}: {said(block, 'not run:')}", end="")
    assert len(COMMANDS) > 60
    assert len(apart) <= len(COMMANDS) / 4


@pytest.mark.parametrize("block", COMMANDS, ids=lambda block: block.place)
def test_every_option_exists(block: Block) -> None:
    """Also in the blocks that are run elsewhere, or not at all."""
    top = click.Context(main, info_name="gptoss-onnx")
    for words in own_command_lines(block):
        command = main.get_command(top, words[0])
        assert command is not None, words
        command.make_context(words[0], words[1:], parent=top)  # parses, and runs nothing


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    typed = "\n".join(command for block in COMMANDS for command in block.commands)
    targets = set(re.findall(r"^make ((?:[A-Z]+=\S+ )*)([a-z-]+)", typed, re.MULTILINE))
    names = {name for _, name in targets}
    installed = re.findall(r"^pip install \S*\[([a-z,-]+)\]", typed, re.MULTILINE)
    extras = {extra for found in installed for extra in found.split(",")}
    assert len(names) > 3
    assert len(extras) > 2
    assert {name for name in names if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()
    assert extras <= project["optional-dependencies"].keys()


def test_the_transcript_of_the_readme_is_what_make_demo_runs() -> None:
    (block,) = (block for block in BLOCKS if block.page == "README.md" and "$ gptoss" in block.text)
    makefile = re.sub(r" *\\\n\s*", " ", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(block.commands) == 3
    for command in block.commands:
        assert f"\t$(BIN)/{command}\n" in makefile
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").count(" demo ") == 1
