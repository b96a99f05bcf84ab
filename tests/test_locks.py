"""One process at a time in a folder, whoever dies how."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from clippy_cli import locks
from clippy_cli.errors import ClippyError
from clippy_cli.locks import LOCK, FolderInUseError, hold_folder

HOLDER = """
import sys, time
from pathlib import Path
from clippy_cli.locks import hold_folder
with hold_folder(Path(sys.argv[1]), "clippy train", shared="shared" in sys.argv):
    if "with a worker" in sys.argv:  # a worker that outlives its parent must not keep the lock
        import os
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    print("held", flush=True)
    time.sleep(60)
"""


def start(folder, *arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process.stdout as stream:
        assert stream.readline() == "held\n"
    return process


def test_the_second_process_is_refused_and_told_who_holds_the_folder(tmp_path):
    process = start(tmp_path / "run", "with a worker")
    try:
        told = rf"in use by clippy train \(process {process.pid} on "
        with pytest.raises(ClippyError, match=told) as refused, hold_folder(tmp_path / "run", "clippy train"):
            pass
        assert "choose another folder" in refused.value.hint
        process.kill()
        process.wait()
        with hold_folder(tmp_path / "run", "clippy train"):  # its worker lives on, and the file is stale
            assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "run" / LOCK).exists()


def test_the_same_process_is_refused_too_and_an_unused_folder_is_left_as_it_was(tmp_path):
    with hold_folder(tmp_path / "new", "clippy evaluate"):
        with pytest.raises(ClippyError, match="in use by"), hold_folder(tmp_path / "new", "clippy evaluate"):
            pass
        with hold_folder(tmp_path / "other", "clippy evaluate"):
            pass
    assert not list(tmp_path.iterdir())
    with hold_folder(tmp_path / "used", "clippy evaluate"):
        (tmp_path / "used" / "result.json").write_text("{}")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    "content", ["", "no json", "[" * 5000, "[1]", '{"pid": "x", "host": HERE}', '{"pid": 9, "host": HERE}']
)
def test_a_leftover_of_this_machine_is_taken_over(tmp_path, content):
    (tmp_path / LOCK).write_text(content.replace("HERE", json.dumps(socket.gethostname())))
    with hold_folder(tmp_path, "clippy train"):
        assert json.loads((tmp_path / LOCK).read_text())["work"] == "clippy train"


def test_a_leftover_of_another_machine_is_not_and_how_to_go_on_is_said(tmp_path):
    (tmp_path / LOCK).write_text(json.dumps({"host": "node17", "pid": 4, "since": "yesterday", "work": "clippy train"}))
    told = "process 4 on node17, since yesterday"
    with pytest.raises(ClippyError, match=told) as refused, hold_folder(tmp_path, "clippy train"):
        pass
    assert str(tmp_path / LOCK) in refused.value.hint


def test_those_that_share_keep_out_only_who_wants_it_alone(tmp_path):
    process = start(tmp_path / "out", "shared")
    try:
        with hold_folder(tmp_path / "out", "clippy segment", shared=True):
            pass
        assert (tmp_path / "out" / LOCK).exists()  # the other still needs it
        with pytest.raises(FolderInUseError, match="in use by"), hold_folder(tmp_path / "out", "clippy evaluate"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    alone = start(tmp_path / "out")
    try:
        refused = hold_folder(tmp_path / "out", "clippy segment", shared=True)
        with pytest.raises(FolderInUseError, match=f"clippy train .process {alone.pid}"), refused:
            pass
    finally:
        os.killpg(alone.pid, signal.SIGKILL)
        alone.wait()
    with hold_folder(tmp_path / "out", "clippy segment", shared=True):
        pass
    assert not list((tmp_path / "out").iterdir())


def test_a_lock_that_is_deleted_and_taken_by_another_is_left_to_it(tmp_path):
    with hold_folder(tmp_path, "clippy train"):
        (tmp_path / LOCK).unlink()
        (tmp_path / LOCK).write_text("another's")
    assert (tmp_path / LOCK).read_text() == "another's"


@pytest.mark.parametrize(("started", "alive"), [(None, True), ("now", True), ("earlier", False)])
def test_without_locks_a_process_that_has_got_the_number_of_a_dead_one_holds_nothing(
    tmp_path, monkeypatch, started, alive
):
    def none(*arguments):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(locks.fcntl, "lockf", none)
    with hold_folder(tmp_path / "other", "clippy train"):
        fields = json.loads((tmp_path / "other" / LOCK).read_text())
    fields |= {"started": fields["started"] if started == "now" else started}
    (tmp_path / LOCK).write_text(json.dumps(fields))
    if alive:
        with pytest.raises(FolderInUseError) as refused, hold_folder(tmp_path, "clippy train"):
            pass
        assert f"delete {tmp_path / LOCK}" in refused.value.hint
    else:
        with hold_folder(tmp_path, "clippy train"):
            pass


def left_by_another_machine(folder, age, **fields):
    """A lock whose holder was on another machine and touched it ``age`` seconds ago."""
    folder.mkdir(exist_ok=True)
    (folder / LOCK).write_text(json.dumps({"pid": 1, "host": "another", "work": "clippy segment", **fields}))
    os.utime(folder / LOCK, (time.time() - age,) * 2)


def test_a_lease_of_another_machine_ends_when_its_holder_no_longer_touches_it(tmp_path):
    left_by_another_machine(tmp_path / "run", 50, lease=100.0)
    with pytest.raises(FolderInUseError), hold_folder(tmp_path / "run", "clippy segment", lease=100.0):
        pass
    left_by_another_machine(tmp_path / "run", 150, lease=100.0)
    with hold_folder(tmp_path / "run", "clippy segment", lease=100.0):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["lease"] == 100.0
    left_by_another_machine(tmp_path / "run", 1e6)  # without a lease it is for good
    with pytest.raises(FolderInUseError), hold_folder(tmp_path / "run", "clippy segment", lease=100.0):
        pass


def test_who_holds_a_lease_touches_it(tmp_path):
    with hold_folder(tmp_path / "run", "clippy segment", lease=0.02):
        os.utime(tmp_path / "run" / LOCK, (5, 5))
        deadline = time.monotonic() + 30
        while (tmp_path / "run" / LOCK).stat().st_mtime == 5:
            assert time.monotonic() < deadline
            time.sleep(0.001)
