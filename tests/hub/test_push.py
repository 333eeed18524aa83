"""`push` on a hub of this machine: what it uploads, what it leaves alone, and what comes back."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from gptoss_onnx.errors import InputError, PackageError, RuntimeUnavailable
from gptoss_onnx.hub.card import write_card
from gptoss_onnx.hub.layout import uploads
from gptoss_onnx.hub.origin import Origin
from gptoss_onnx.hub.push import push
from gptoss_onnx.manifest import Manifest
from gptoss_onnx.package import Package
from gptoss_onnx.runtime import Session, open_package
from support.command_line import done, run
from support.fake_hub import Hub, fake_hub

TOKEN = "hf_a_token_that_nobody_may_see"
NAME = "me/a-model"
# other tests of the run may have validated the package that all share
REPORT = shutil.ignore_patterns("parity.json")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with fake_hub() as served:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", served.url)
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture
def package(tiny_package: Package, tmp_path: Path) -> Package:
    """A package whose weights are hard links, with a card and what does not belong to it."""
    folder = tmp_path / "package"
    shutil.copytree(tiny_package.folder, folder, copy_function=_link_weights, ignore=REPORT)
    made = Package(folder, Manifest.read(folder))
    write_card(made, Origin(licence="apache-2.0", licence_text=b"Apache\n"), None)
    (folder / "notes.txt").write_text("not for others")
    (folder / ".env").write_text("not for others")
    return made


def _link_weights(source: str, target: str) -> None:
    if source.endswith(".safetensors"):
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)


def _files_of(manifest: Manifest) -> set[str]:
    names = {entry.name for entry in manifest.weights.files} | {*manifest.tokenizer_files}
    return names | {manifest.graph, "manifest.json", "generation_config.json", "golden/golden.json"}


def test_a_package_comes_back_and_runs(hub: Hub, package: Package, tmp_path: Path) -> None:
    found = push(open_package(package.folder), NAME)
    assert found.url is not None
    files = hub.files(NAME)
    inside = {f"onnx/{name}" for name in _files_of(package.manifest)}
    root = {"README.md", "LICENSE", "config.json", "generation_config.json"}
    root |= {*package.manifest.tokenizer_files}
    assert set(files) == inside | root == {upload.path for upload in found.files}
    assert found.size == sum(map(len, files.values()))
    assert (hub.commits, hub.private) == (1, set())
    assert json.loads(files["config.json"])["model_type"] == package.manifest.model["model_type"]
    huggingface_hub.snapshot_download(NAME, local_dir=tmp_path / "back")
    with (
        Session.open(tmp_path / "back" / "onnx", threads=1) as theirs,
        Session.open(package.folder, threads=1) as ours,
    ):
        assert theirs.manifest.weights.mode == "copy"
        tokens = [list(one.generate([1, 2, 3], max_new_tokens=8)) for one in (theirs, ours)]
    assert tokens[0] == tokens[1]


def test_pushing_again_changes_what_is_ours(hub: Hub, package: Package) -> None:
    push(open_package(package.folder), NAME, private=True)
    assert hub.private == {NAME}
    write_card(package, Origin(licence="mit"), None)
    push(open_package(package.folder), NAME, private=False)
    assert b"license: mit" in hub.files(NAME)["README.md"]
    assert (hub.commits, hub.private) == (2, {NAME})


def test_the_root_of_others_stays(hub: Hub, package: Package) -> None:
    theirs = {"README.md": b"---\nlicense: mit\n---\n# Theirs\n", "config.json": b"{}"}
    hub.repositories[NAME] = {"main": dict(theirs)}
    found = push(open_package(package.folder), NAME, folder="onnx/small")
    assert not found.with_root
    files = hub.files(NAME)
    assert {name: files[name] for name in theirs} == theirs
    assert all(name in theirs or name.startswith("onnx/small/") for name in files)
    assert b"library_name: gptoss-onnx" in files["onnx/small/README.md"]


def test_a_branch_is_made(hub: Hub, package: Package) -> None:
    hub.repositories[NAME] = {"main": {}}
    push(open_package(package.folder), NAME, revision="next")
    assert hub.files(NAME) == {}
    assert "onnx/manifest.json" in hub.files(NAME, "next")


def test_a_package_without_a_card_gets_one(hub: Hub, package: Package) -> None:
    (package.folder / "README.md").unlink()
    push(open_package(package.folder), NAME)
    assert b"**Unknown.**" in hub.files(NAME)["README.md"]


def test_the_command_line(hub: Hub, package: Package) -> None:
    said = done("push", package.folder, NAME, "--dry-run")
    assert said.endswith("nothing was uploaded\n")
    assert (hub.repositories, hub.tokens) == ({}, set())
    for name in _files_of(package.manifest):
        assert f"onnx/{name}\n" in said
    assert "notes.txt" not in said
    assert ".env" not in said
    result = run("push", package.folder, NAME)
    assert result.exit_code == 0, result.stderr
    assert f"{hub.url}/{NAME}/commit/" in result.stdout
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in result.output


def test_a_refusal_is_one_line_without_the_token(hub: Hub, package: Package) -> None:
    hub.refusal = (403, f"no, {TOKEN}, Bearer {TOKEN}\nsecond line")
    result = run("push", package.folder, NAME)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"{NAME}: cannot be uploaded to (" in result.stderr
    assert TOKEN not in result.output
    assert hub.files(NAME) == {}


def test_a_hub_that_is_not_there(
    hub: Hub, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(RuntimeUnavailable, match="cannot be uploaded to"):
        push(open_package(package.folder), NAME)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no-owner", {}, "repository: found 'no-owner'"),
        ("a/b/c", {}, "repository: found"),
        ("a/../b", {}, "repository: found"),
        (NAME, {"folder": "../up"}, "--path: found"),
        (NAME, {"folder": "/root"}, "--path: found"),
        (NAME, {"folder": ".git"}, "--path: found"),
        (NAME, {"revision": "a..b"}, "--revision: found"),
        (NAME, {"revision": "-x"}, "--revision: found"),
    ],
)
def test_wrong_names_are_refused(
    package: Package, name: str, options: dict[str, str], said: str
) -> None:
    with pytest.raises(InputError, match=f"^{said}"):
        push(open_package(package.folder), name, dry_run=True, **options)


def test_nothing_outside_of_the_package_is_read(package: Package, tmp_path: Path) -> None:
    opened = open_package(package.folder)
    (tmp_path / "secret").write_text("a key")
    for name in ("README.md", "LICENSE", "parity.json", "golden/golden.json"):
        path = package.folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "secret")
        with pytest.raises(PackageError, match="found a link"):
            uploads(opened, "onnx", with_root=True)
        path.unlink()


def test_weights_of_several_folders_need_a_copy(package: Package) -> None:
    document = package.manifest.document()
    document["weights"] |= {"mode": "reference", "root": str(package.folder.parent)}
    for entry in document["weights"]["files"]:
        entry["name"] = f"package/{entry['name']}"
    (package.folder / "manifest.json").write_text(json.dumps(document))
    moved = Package(package.folder, Manifest.read(package.folder))
    with pytest.raises(PackageError, match="export it again with --weights copy"):
        uploads(moved, "onnx", with_root=True)
