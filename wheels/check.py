"""Refuse a wheel that would not run where its tag says, and an sdist with wrong contents.

python wheels/check.py dist/*.whl dist/*.tar.gz
"""

import io
import re
import sys
import tarfile
import zipfile
from pathlib import Path

from elftools.elf.elffile import ELFFile

LIBRARY = "gptoss_onnx/custom_ops/libgptoss_ops.so"
TAG = re.compile(r"-py3-none-manylinux_2_28_(x86_64|aarch64)\.whl$")
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
GLIBC = (2, 28)
# No libstdc++: it is linked in. libgcc_s is on every machine that has ONNX Runtime, which needs it.
SYSTEM = re.compile(r"(lib(c|m|pthread|gcc_s)|ld-linux-(x86-64|aarch64))\.so\.\d+")
EXPORTED = re.compile(r"RegisterCustomOps|gptoss_\w+")
SDIST_BYTES = 8_000_000


def library_faults(elf: bytes, machine: str) -> list[str]:
    """Return what keeps the library `elf` from running on any `machine` with glibc 2.28."""
    file = ELFFile(io.BytesIO(elf))
    dynamic = file.get_section_by_name(".dynamic")
    needed = [tag.needed for tag in dynamic.iter_tags("DT_NEEDED")]
    newest = max(_glibc_versions(file))
    names = [
        symbol.name
        for symbol in file.get_section_by_name(".dynsym").iter_symbols()
        if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
    ]
    faults = []
    if file["e_machine"] != MACHINES[machine]:
        faults.append(f"found a library for {file['e_machine']}, expected {MACHINES[machine]}")
    if strange := sorted(name for name in needed if not SYSTEM.fullmatch(name)):
        faults.append(f"needs {', '.join(strange)}, expected libraries of the system alone")
    if newest > GLIBC:
        faults.append(f"needs glibc {_dotted(newest)}, expected at most {_dotted(GLIBC)}")
    if "RegisterCustomOps" not in names:
        faults.append("does not export RegisterCustomOps")
    if strange := sorted(name for name in names if not EXPORTED.fullmatch(name)):
        faults.append(f"exports {', '.join(strange)}, expected what gptoss_ops.h declares")
    return faults


def wheel_faults(path: Path) -> list[str]:
    """Return what is wrong with a wheel."""
    tag = TAG.search(path.name)
    if tag is None:
        return [f"found no tag py3-none-manylinux_2_28 of {' or '.join(MACHINES)} in its name"]
    with zipfile.ZipFile(path) as wheel:
        libraries = [name for name in wheel.namelist() if ".so" in name]
        if libraries != [LIBRARY]:
            return [f"found libraries {libraries}, expected {LIBRARY}"]
        return library_faults(wheel.read(LIBRARY), tag[1])


def sdist_faults(path: Path) -> list[str]:
    """Return what is wrong with an sdist."""
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    faults = [
        f"lacks {name}"
        for name in ("LICENSE", "PKG-INFO", "pyproject.toml", "custom_ops/native/CMakeLists.txt")
        if name not in names
    ]
    if strange := sorted(name for name in names if name.startswith("demo/checkpoint/")):
        faults.append(f"holds {strange[0]}, expected no weights")
    if (size := path.stat().st_size) > SDIST_BYTES:
        faults.append(f"is {size} bytes long, expected at most {SDIST_BYTES}")
    return faults


def _glibc_versions(file: ELFFile) -> list[tuple[int, ...]]:
    found = [
        version.name.removeprefix("GLIBC_")
        for _, versions in file.get_section_by_name(".gnu.version_r").iter_versions()
        for version in versions
        if version.name.startswith("GLIBC_")
    ]
    return [tuple(int(part) for part in name.split(".")) for name in found]


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def main(paths: list[Path]) -> int:
    """Print one line for each file, and return the exit status."""
    status = 0
    for path in paths:
        faults = wheel_faults(path) if path.suffix == ".whl" else sdist_faults(path)
        print(f"{path.name}: {'; '.join(faults) or 'ok'}")
        status |= bool(faults)
    return status


if __name__ == "__main__":
    sys.exit(main([Path(argument) for argument in sys.argv[1:]]))
