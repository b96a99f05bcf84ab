"""The benchmark of whole photos a second runs in small; its figures are for a GPU."""

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

WORK = ("segment, no refinement", "segment, guided filter", "evaluate", "embed", "embed, patches")


def measured(device: str) -> list[list[str]]:
    command = [sys.executable, "benchmarks/bulk_gpu.py", "--tiny", "--no-file", "--device", device]
    result = subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [[cell.strip() for cell in line.split("|")] for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_it_measures_each_kind_of_work():
    rows = measured("cpu")
    assert tuple(row[2] for row in rows[: len(WORK)]) == WORK
    assert all(float(row[3]) > 0 for row in rows)
    assert [row[2] for row in rows[len(WORK) :]] == ["guided alone, maps on cpu", "pamr alone, maps on cpu"]


@pytest.mark.cuda
def test_on_a_device_it_counts_copies():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    rows = measured("cuda")
    assert all(float(row[5]) > 0 and float(row[6]) > 0 for row in rows[: len(WORK)])
