"""What mkdocs does beyond its configuration when it builds the site.

It adds pages that are written elsewhere (the README of each client, CONTRIBUTING, the changelog),
the options of every command, and the list of decisions. Links that work on a code host are turned
into links of the site. So every page stays plain Markdown.
"""

import posixpath
import re
import shutil
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from gptoss_onnx.cli import main

ROOT = Path(__file__).parents[2]
MODULES = ROOT / "build" / "docs" / "gptoss_onnx"
# Pages from outside of docs/, with their titles in the navigation.
ELSEWHERE = {
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changelog",
    "clients/README.md": "The clients",
    "clients/cpp/README.md": "The client in C++",
    "clients/node/README.md": "The client for Node",
    "clients/browser/README.md": "The client in the browser",
    "demo/README.md": "The demo checkpoint",
}
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *(```|~~~)")


def on_startup(command: str, dirty: bool) -> None:
    """Link the modules for mkdocstrings, which looks what there is before `on_config` comes here.

    The arguments are those that mkdocs calls with; they change nothing.
    """
    shutil.rmtree(MODULES, ignore_errors=True)
    MODULES.mkdir(parents=True)
    for part in (ROOT / "src" / "gptoss_onnx").iterdir():
        (MODULES / part.name).symlink_to(part)
    for part in ROOT.glob("*/__init__.py"):
        (MODULES / part.parent.name).symlink_to(part.parent)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation."""
    assert config.nav is not None
    pages = [{title: _place(path)} for path, title in ELSEWHERE.items()]
    config.nav[-1]["Contribute"] += pages
    config.nav.append({"Decisions": ["adr/README.md", *(f"adr/{path.name}" for path in _adrs())]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are written elsewhere."""
    for path in ELSEWHERE:
        files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "reference/commands.md", content=_commands()))
    files.append(File.generated(config, "adr/README.md", content=_decisions()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that work on a code host into links that work on the site."""
    here = page.file.src_uri
    origin = {_place(path): path for path in ELSEWHERE}.get(here, f"docs/{here}")
    code, lines = False, []
    for line in markdown.split("\n"):
        code ^= bool(FENCE.match(line))
        lines.append(line if code else LINK.sub(lambda m: _link(m, origin, here, config), line))
    return "\n".join(lines)


def _link(found: re.Match[str], origin: str, here: str, config: MkDocsConfig) -> str:
    """Return a link of the page that lies at `origin` in the repository and `here` on the site."""
    text, target = found.groups()
    path, hash_sign, anchor = target.partition("#")
    if not path or ":" in path:
        return found.group()
    aim = posixpath.normpath(posixpath.join(posixpath.dirname(origin), path))
    if (ROOT / aim).is_dir() and (f"{aim}/README.md" in ELSEWHERE or aim.startswith("docs/")):
        aim += "/README.md"
    if aim in ELSEWHERE or (aim.startswith("docs/") and aim.endswith((".md", ".svg"))):
        url = posixpath.relpath(_place(aim), posixpath.dirname(here) or ".")
        return f"[{text}]({url}{hash_sign}{anchor})"
    if config.extra["source_url"]:
        return f"[{text}]({config.extra['source_url']}{aim})"
    return f"{text} (`{aim}`)" if PurePosixPath(aim).name not in text else f"`{aim}`"


def _place(path: str) -> str:
    """Return where a file of the repository lies on the site."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def _adrs() -> list[Path]:
    return sorted((ROOT / "docs" / "adr").glob("0*.md"))


def _decisions() -> str:
    lines = ["# Decisions", "", "What was decided, why, and what it costs; numbered by age.", ""]
    for path in _adrs():
        title = path.read_text(encoding="utf-8").split("\n", 1)[0].removeprefix("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines)


def _commands() -> str:
    """Return the help of each command, as the command prints it."""
    import click

    top = click.Context(main, info_name="gptoss-onnx")
    parts = ["# Commands", "", "What each command prints with `--help`.", ""]
    for name in (None, *main.list_commands(top)):
        command = main if name is None else main.get_command(top, name)
        assert command is not None
        context = top if name is None else click.Context(command, info_name=name, parent=top)
        title = "gptoss-onnx" if name is None else f"gptoss-onnx {name}"
        parts += [f"## {title}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(parts)
