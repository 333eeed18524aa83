"""One session on a package whose logits spell out what its cache holds, windows included."""

from collections.abc import Iterator

import pytest

from gptoss_onnx.runtime import Session
from support.fake_package import write_fake_package

WINDOWS = (0, 3, 8)


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """A session that shows every slot that was lost or taken for another."""
    folder = write_fake_package(tmp_path_factory.mktemp("fake") / "package", WINDOWS, sign=-1)
    with Session.open(folder, threads=1) as opened:
        yield opened
