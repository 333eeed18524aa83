"""Clients on another ONNX Runtime than the one that they were linked with.

A program asks for the symbols of one version, so a library of that version stands between, and
hands on what another version says: ONNX Runtime serves the interfaces of all versions before it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

from support.cpp_client import ROOT
from support.node_client import CLIENT
from support.one_run import once

NAME = "libonnxruntime.so.1"
FORWARD = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

const void* OrtGetApiBase(void) {
  void* library = dlopen("LIBRARY", RTLD_NOW);
  if (library == NULL) {
    fprintf(stderr, "%s\\n", dlerror());
    abort();
  }
  const void* (*base)(void) = (const void* (*)(void))dlsym(library, "OrtGetApiBase");
  return base();
}
"""


def runtime_library(factory: pytest.TempPathFactory, version: str) -> Path:
    """Return the library of ONNX Runtime of a version, fetched unless it is there."""
    folder = ROOT / "build" / f"onnxruntime-{version}"

    def fetch() -> None:
        if not (folder / "VERSION_NUMBER").is_file():
            environment = {**os.environ, "PYTHON": sys.executable}
            script = ROOT / "clients" / "cpp" / "fetch_onnxruntime.sh"
            subprocess.run([script, folder, version], check=True, env=environment)
        assert (folder / "VERSION_NUMBER").read_text() == f"{version}\n"

    once(factory, folder.name, fetch)
    return folder / "lib" / f"libonnxruntime.so.{version}"


def cpp_environment(folder: Path, library: Path) -> dict[str, str]:
    """Return the environment in which the C++ client runs on a library; writes into `folder`."""
    build_forward(folder / NAME, library, onnxruntime.__version__)
    return {"LD_PRELOAD": str(folder / NAME)}


def node_on_this_runtime(folder: Path) -> Path:
    """Write a copy of the Node client, which has been built, to `folder`; return its command line.

    Its onnxruntime-node is of the version of this Python's `onnxruntime`, and says so.
    """
    theirs = CLIENT / "node_modules" / "onnxruntime-node"
    ours = folder / "node_modules" / "onnxruntime-node"
    folder.joinpath("node_modules").mkdir(parents=True)
    for module in theirs.parent.iterdir():
        if module.name != theirs.name:
            (folder / "node_modules" / module.name).symlink_to(module)
    shutil.copytree(CLIENT / "dist", folder / "dist")
    shutil.copy(CLIENT / "package.json", folder)
    unused = shutil.ignore_patterns("libonnxruntime*", "darwin", "win32")
    shutil.copytree(theirs, ours, ignore=unused)
    package = json.loads((ours / "package.json").read_text())
    old, package["version"] = package["version"], onnxruntime.__version__
    (ours / "package.json").write_text(json.dumps(package))
    (binding,) = ours.glob("bin/napi-v*/linux/x64/onnxruntime_binding.node")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    build_forward(binding.with_name(NAME), library, old)
    return folder / "dist" / "cli.js"


def build_forward(target: Path, library: Path, version: str) -> None:
    """Build a library that is taken for ONNX Runtime of `version`, and hands on to `library`."""
    source, symbols = target.with_suffix(".c"), target.with_suffix(".symbols")
    source.write_text(FORWARD.replace("LIBRARY", str(library)))
    symbols.write_text(f"VERS_{version} {{ global: OrtGetApiBase; local: *; }};\n")
    flags = [f"-Wl,-soname,{NAME}", f"-Wl,--version-script={symbols}", "-ldl"]
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, source, *flags], check=True)
