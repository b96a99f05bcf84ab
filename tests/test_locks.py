"""One process at a time in a folder, whoever dies how."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from clippy_cli.errors import ClippyError
from clippy_cli.locks import LOCK, hold_folder

HOLDER = """
import sys, time
from pathlib import Path
from clippy_cli.locks import hold_folder
with hold_folder(Path(sys.argv[1]), "clippy train"):
    print("held", flush=True)
    if len(sys.argv) > 2:  # a worker that outlives its parent must not keep the lock
        import os
        if os.fork() == 0:
            time.sleep(60)
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
