"""Interrupted, damaged and divided runs end in the same counts."""

import json
import os
import socket
import subprocess
import sys

import pytest

from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation import set_evaluation
from clippy_cli.evaluation.journal import write_lines
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.processes import Processes, launched_processes
from tests.conftest import REPOSITORY
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.image_sets import Flags, halves

MASKS = [halves(0, 1), halves(1, 1), None, halves(255, 0), halves(0, 0), halves(1, 0), halves(0, 1)]
OPTIONS = Options(batch_size=2, groups=2)


class Interrupted(Flags):
    """Reading this image stops the process."""

    def __init__(self, masks, at):
        super().__init__(masks)
        self.at = at

    def read(self, index):
        if index == self.at:
            raise KeyboardInterrupt
        return super().read(index)


def evaluate(images, journals=None, overrides=None, options=OPTIONS):
    return evaluate_set(
        ColourModel(),
        images,
        load_protocol("clippy"),
        tasks=("segment", "group"),
        options=options,
        overrides=overrides,
        journals=journals,
    )


def lines(evaluated):
    return {task: write_lines(records) for task, records in evaluated.records.items()}


@pytest.fixture
def begun(tmp_path):
    """A folder with the journal of a run that was stopped at the sixth image, four being counted."""
    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(MASKS, at=5), tmp_path)
    (journal,) = tmp_path.glob("*.jsonl")
    return journal


def test_a_stopped_run_goes_on_and_ends_in_the_same_counts(begun):
    images = Flags(MASKS)
    evaluated = evaluate(images, begun.parent)
    assert sorted(images.reads) == [2, 3, 4, 5, 6]  # the torn image might have been mended, so its block is tried again
    assert lines(evaluated) == lines(evaluate(Flags(MASKS)))
    assert evaluated.results[0].seconds > 0
    evaluated.journals[0].remove()
    assert not list(begun.parent.glob("*.jsonl"))


def test_a_finished_journal_needs_no_image(tmp_path):
    whole = evaluate(Flags(MASKS), tmp_path)
    images = Flags(MASKS)
    assert lines(evaluate(images, tmp_path)) == lines(whole) and sorted(images.reads) == [2, 3]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-30],
        lambda text: text + '{"seconds": 1, "images": [{"index": 4, "ta',
        lambda text: text.splitlines()[0] + "\nno json\n",
        lambda text: text.splitlines()[0] + '\n{"seconds": 1, "images": [{"index": 0, "tasks": {"segment": 7}}]}\n',
        lambda text: "",
        lambda text: "[]\n" + text,
        lambda text: text.replace('"seconds":', '"seconds":-', 1),
        lambda text: text.replace('"segment":', '"retrieve":', 1),
        lambda text: text.replace("[[0,0,", "[[9,0,", 1),
        lambda text: text.replace('"index":0', '"index":70', 1),
    ],
)
def test_damaged_journals_are_counted_again(begun, damage):
    begun.write_text(damage(begun.read_text()))
    expected = lines(evaluate(Flags(MASKS)))
    assert lines(evaluate(Flags(MASKS), begun.parent)) == expected
    images = Flags(MASKS)
    assert lines(evaluate(images, begun.parent)) == expected and sorted(images.reads) == [2, 3]


class OnDisk(Flags):
    """Flags with a file each, which hold nothing."""

    def __init__(self, folder):
        super().__init__(MASKS)
        self.folder = folder

    def files(self, index):
        return (self.folder / f"{index}.png",)


def test_images_whose_files_changed_are_counted_again_and_named(tmp_path, caplog):
    for index in range(len(MASKS)):
        (tmp_path / f"{index}.png").write_bytes(b"mask")
    evaluate(OnDisk(tmp_path), tmp_path / "journal")
    (tmp_path / "5.png").write_bytes(b"another mask")
    (tmp_path / "6.png").unlink()
    again = OnDisk(tmp_path)
    evaluate(again, tmp_path / "journal")
    assert sorted(again.reads) == [2, 3, 4, 5, 6]  # blocks of two; 2 and 3 hold the torn image
    assert f"2 images have changed since the interrupted evaluation counted them ({again.key(5)}, " in caplog.text


def test_a_replaced_file_of_the_same_size_and_time_is_noticed(tmp_path):
    for index in range(len(MASKS)):
        (tmp_path / f"{index}.png").write_bytes(b"mask")
    evaluate(OnDisk(tmp_path), tmp_path / "journal")
    before = (tmp_path / "5.png").stat()
    (tmp_path / "other").write_bytes(b"last")
    os.utime(tmp_path / "other", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "other").replace(tmp_path / "5.png")
    again = OnDisk(tmp_path)
    evaluate(again, tmp_path / "journal")
    assert sorted(again.reads) == [2, 3, 4, 5]


def test_a_mended_image_counts(begun):
    mended = [halves(1, 0) if mask is None else mask for mask in MASKS]
    evaluated = evaluate(Flags(mended), begun.parent)
    assert evaluated.results[0].data.failed == () and lines(evaluated) == lines(evaluate(Flags(mended)))


def test_other_words_start_another_journal_and_are_named(begun, caplog):
    images = Flags(MASKS, classes=("red", "green"))
    evaluated = evaluate(images, begun.parent)
    assert sorted(images.reads) == list(range(7))
    assert "is not used, since the classes or their words changed" in caplog.text
    evaluated.journals[0].remove()
    assert not list(begun.parent.iterdir())


def test_other_weights_start_another_journal_and_are_named(begun, caplog, monkeypatch):
    monkeypatch.setattr(set_evaluation, "model_fingerprint", lambda model: "other")
    images = Flags(MASKS)
    evaluate(images, begun.parent)
    assert sorted(images.reads) == list(range(7)) and "since the model's weights changed" in caplog.text


def test_other_settings_start_another_journal(begun):
    settings = {"templates": "none"}, {"scales": (1.0, 2.0)}, {"flip": True}, {"refine": "pamr"}
    options = {"groups": 3}, {"groups": 2, "regions": begun.parent}
    for changes in (
        *({"overrides": Overrides(**change)} for change in settings),
        *({"options": Options(batch_size=2, **change)} for change in options),
    ):
        images = Flags(MASKS)
        evaluate(images, begun.parent, **changes)
        assert sorted(images.reads) == list(range(7))


def test_a_journal_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ClippyError, match="cannot be written"):
        evaluate(Flags(MASKS), tmp_path / "file")


WORKER = """
import sys
from pathlib import Path
from clippy_cli.processes import launched_processes
from tests.conftest import nano_model
from tests.evaluation.test_run import evaluate_scenes

with launched_processes() as processes:
    evaluate_scenes(nano_model(), Path(sys.argv[1]), processes)
"""


def evaluate_scenes(model, folder, processes):
    evaluated = evaluate_set(
        model,
        SceneBenchmark(9, 64),
        load_protocol("clippy"),
        tasks=("segment", "group", "cluster"),
        options=Options(batch_size=2),
        journals=folder,
        processes=processes,
    )
    text = b"".join(write_lines(records) for records in evaluated.records.values())
    (folder / f"result-{processes.rank}").write_bytes(text)


@pytest.mark.slow
def test_two_processes_count_the_same_as_one(nano, tmp_path):
    alone, both = tmp_path / "alone", tmp_path / "both"
    both.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(both)],
            cwd=REPOSITORY,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    alone.mkdir()
    evaluate_scenes(nano, alone, Processes())
    for worker in workers:
        _, errors = worker.communicate(timeout=200)
        assert worker.returncode == 0, errors[-2000:]
    expected = (alone / "result-0").read_bytes()
    assert len(expected.splitlines()) == 27 and json.loads(expected.splitlines()[0])["key"] == "scene-0"
    assert [(both / f"result-{rank}").read_bytes() for rank in (0, 1)] == [expected] * 2
    assert len(list(both.glob("*.part*.jsonl"))) == 2


def test_processes_without_company_are_explained(monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for stated in ("2", "many", ""):
        monkeypatch.setenv("WORLD_SIZE", stated)
        with pytest.raises(ClippyError, match="could not be joined"), launched_processes():
            pass
