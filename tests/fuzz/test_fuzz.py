"""The harness finds what it looks for; and a few hundred damaged files of every kind are all refused well."""

import time

import numpy as np
import pytest

from clippy_cli.errors import ClippyError
from tests.fuzz import harness
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutators import BYTES

COUNT = 200


def refuse(folder):
    raise ClippyError("no")


def divide(folder):
    return 1 // 0


def wait(folder):
    time.sleep(60)


def take(folder):
    return np.ones(harness.BYTES + (1 << 28), np.uint8)


def leave(folder):
    import os

    os._exit(7)


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (refuse, None),
        (divide, "ZeroDivisionError"),
        (wait, "took longer than 1 s"),
        (take, "MemoryError"),
        (leave, "process ended with 7"),
    ],
)
def test_tracebacks_hangs_memory_and_dead_processes_are_found(monkeypatch, read, says):
    monkeypatch.setattr(harness, "SECONDS", 1)
    whole: list[object] = []

    def once(folder):  # the whole file is readable
        return read(folder) if whole else whole.append(folder)

    kind = harness.Kind(lambda folder: (folder / "a").write_bytes(b"whole"), once, {"a": BYTES})
    failures = harness.fuzz("kind", kind, 1, first=5).failures
    assert [failure.seed for failure in failures] == ([] if says is None else [5])
    assert all(says in failure.what for failure in failures)


def test_a_seed_makes_the_same_file_again(tmp_path):
    kind = harness.Kind(lambda folder: None, lambda folder: None, {"a": BYTES})
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "a").write_bytes(bytes(range(256)))
    made = [harness.damage(tmp_path / "whole", tmp_path / name, kind, 3).read_bytes() for name in ("one", "two")]
    assert made[0] == made[1] != bytes(range(256))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_refused_in_one_clear_message(name):
    failures = harness.fuzz(name, KINDS[name], COUNT).failures
    assert not failures, "\n".join(map(str, failures))
