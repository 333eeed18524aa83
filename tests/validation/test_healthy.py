"""What is right raises no alarm, whatever its shape, kind, and weights."""

from pathlib import Path

import pytest

from support.healthy_packages import Healthy, healthy, measure

FEW, ALL = 6, 44


@pytest.mark.parametrize("package", list(healthy(FEW, seed=11)), ids=str)
def test_a_few_healthy_packages_raise_no_alarm(package: Healthy, tmp_path: Path) -> None:
    assert [case for case in measure(package, tmp_path) if not case.passed] == []


@pytest.mark.slow
@pytest.mark.mutations
@pytest.mark.parametrize("package", list(healthy(ALL, seed=1)), ids=str)
def test_healthy_packages_raise_no_alarm(package: Healthy, tmp_path: Path) -> None:
    assert [case for case in measure(package, tmp_path) if not case.passed] == []
