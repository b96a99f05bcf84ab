"""Any number of processes, killed at any time, leave the same bytes; shares, claims and leases."""

import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clippy_cli.bulk.run import in_order_of_share, stated_processes
from clippy_cli.model.store import save_model
from clippy_cli.processes import Processes
from tests.conftest import REPOSITORY, nano_model
from tests.fixtures.data import encoded, noise, write_shard

SHARDS, PHOTOS = 7, 24


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_disjoint_and_each_process_would_do_all(count, size):
    parts: list[Any] = list(range(count))
    orders: list[list[Any]] = [in_order_of_share(parts, Processes(rank, size)) for rank in range(size)]
    assert all(sorted(order) == parts for order in orders)
    shares = [order[: len(parts[rank::size])] for rank, order in enumerate(orders)]
    assert sorted(chain(*shares)) == parts


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0)),
        ({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (5, 8, 1)),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4", "SLURM_LOCALID": "2"}, (3, 4, 2)),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (0, 2, 0)),
    ],
)
def test_torchrun_or_srun_says_which_process_this_is(environment, expected, monkeypatch):
    for name in list(os.environ):
        if name in ("RANK", "WORLD_SIZE", "LOCAL_RANK") or name.startswith("SLURM_"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    processes = stated_processes()
    assert (processes.rank, processes.size, processes.local_rank) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model directory and seven shards, with photos of three sizes and a damaged one each."""
    folder = tmp_path_factory.mktemp("bulk")
    save_model(nano_model(), folder / "model")
    (folder / "shards").mkdir()
    for shard in range(SHARDS):
        sizes = [(48, 64), (64, 48), (56, 56)]
        photos = {
            f"{number:03}.png": encoded(noise(*sizes[number % 3], seed=100 * shard + number))
            for number in range(PHOTOS)
        }
        write_shard(folder / "shards" / f"{shard}.tar", photos | {"damaged.jpg": b"\xff\xd8\xff\xe0"})
    return folder


def start(folder: Path, out: str, rank: int = 0, size: int = 1, **environment: str) -> subprocess.Popen[str]:
    """One process, as torchrun starts it, but on two threads where nothing sets another number."""
    stated = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)} | environment
    arguments = ["segment", "shards", "--labels", "dog,grass,sky", "--out", out, "--model", "model", "--device", "cpu"]
    return subprocess.Popen(
        [sys.executable, "-m", "clippy_cli", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "2", **stated},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes: subprocess.Popen[str]) -> list[str]:
    outputs = [process.communicate(timeout=300) for process in processes]
    codes = [process.returncode for process in processes]
    assert codes == [3] + [0] * (len(processes) - 1), outputs  # the damaged photos
    return [stdout for stdout, _ in outputs]


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.is_file()}


@pytest.fixture(scope="module")
def whole(folder) -> dict[str, bytes]:
    """The results of one process."""
    finish(start(folder, "whole"))
    return content(folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_gives_the_same_bytes(folder, whole, size):
    out = f"by-{size}"
    threads = {"OMP_NUM_THREADS": "1"} if size == 3 else {}  # as torchrun sets it
    said, *silent = finish(*(start(folder, out, rank, size, **threads) for rank in range(size)))
    assert said.startswith(f"wrote {SHARDS * PHOTOS} photos in {SHARDS} files")
    assert silent == [""] * (size - 1)
    assert content(folder / out) == whole
    assert len(whole) == SHARDS + 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_while_it_writes_it_goes_on_to_the_same_bytes(folder, whole, number):
    out = folder / f"killed-{number}"
    process = start(folder, out.name)
    deadline = time.monotonic() + 120
    while not (any(out.glob("records/*.json")) and any(out.glob(".working/*/.result-*.part"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 75
        assert "files are finished.\nhint: Run the same command again to go on." in stderr
        assert not list(out.rglob("*.part"))
    finished = {path.stem: (out / f"{path.stem}.tar").stat().st_mtime_ns for path in out.glob("records/*.json")}
    assert 0 < len(finished) < SHARDS
    finish(start(folder, out.name, 0, 2), start(folder, out.name, 1, 2))
    assert {name: (out / f"{name}.tar").stat().st_mtime_ns for name in finished} == finished
    assert content(out) == whole
    assert not (out / ".working").exists()
