"""benchmarks/inference_speed.py: its stopwatch, ratios and agreements; and all of it in small."""

import os
import statistics
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from clippy_cli.files import json_text

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """A module of benchmarks/speed by its name."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return lambda name: import_module(f"speed.{name}")


@pytest.fixture
def code(module, tmp_path):
    """This code base, with a work folder; its commands are timed by a stopwatch in a process of its own."""
    (tmp_path / "work").mkdir()
    return module("codes").Code("today", BENCHMARKS.parent, tmp_path / "work")


def test_a_terminal_is_what_the_command_sees_and_its_first_byte_comes_before_the_end(code):
    run = code.python(["-c", "import os, sys; print(sys.stdout.isatty(), *os.get_terminal_size())"], terminal=True)
    assert run.log.read_text().split() == ["True", "120", "40"]
    assert 0 < run.first <= run.seconds
    assert code.python(["-c", "print(1)"]).first is None


def test_a_command_that_fails_ends_the_measurement_with_its_words(code):
    with pytest.raises(SystemExit, match=r"today: python -c .*: exit code 3\nno photo"):
        code.python(["-c", "import sys; print('no photo'); sys.exit(3)"])


def test_peak_memory_is_that_of_the_command_and_not_of_who_starts_it(code):
    ballast = np.ones(100 << 20, np.uint8)  # Linux would count it where a large process starts the command itself
    none, some = (code.python(["-c", f"x = bytearray({size} << 20)"]).peak for size in (0, 50))
    assert 45 << 20 < some - none < 55 << 20
    assert none < ballast.nbytes


def test_sides_take_turns_and_change_their_order(module):
    calls = []
    sides = {name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}
    assert module("codes").in_turn(3, sides) == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert "".join(calls) == "abbaab"


def test_ratios_are_taken_within_rounds(module):
    row = module("rows").Row("x, s", [1.0, 2.0, 10.0], [3.0, 4.0, 50.0], "floor", [1.0, 1.0, 2.0], "equal")
    assert row.cells() == [
        "x, s", "4 (3-50)", "2 (1-10)", f"{statistics.median([3, 2, 5]):.2f}x", "floor", "1 (1-2)", "4.00x", "2.00x",
        "equal",
    ]  # fmt: skip
    assert row.cells()[0] == module("rows").COLUMNS[0].replace("measured", "x, s")
    assert module("rows").Row("x, s", [1.0]).cells() == ["x, s", "", "1", "", "", "", "", "", ""]


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # of pycocotools itself, under NumPy 2
def test_agreement_of_masks_and_of_documents_is_the_share_of_equal_pixels(module, tmp_path):
    agreement = module("agreement")
    codes = np.zeros((4, 5), np.uint8)
    codes[1:3, 2:] = 2
    other = codes.copy()
    other[0, :2] = 1  # 2 of 20 pixels
    for name, mask in (("one", codes), ("other", other)):
        (tmp_path / name).mkdir()
        Image.fromarray(mask, "L").convert("P").save(tmp_path / name / "a_mask.png")
        regions = [
            {"code": code, "rle": {**rle, "counts": rle["counts"].decode()}}
            for code in (1, 2)
            for rle in [coco.encode(np.asfortranarray(mask == code, np.uint8))]
        ]
        (tmp_path / name / "a.json").write_text(json_text({"width": 5, "height": 4, "regions": regions}))
    one, other = tmp_path / "one", tmp_path / "other"
    assert agreement.of_masks(one, other) == agreement.of_documents(one, other) == "90.000 % of pixels"
    assert agreement.of_masks(one, one) == "100.000 % of pixels"
    (other / "b_mask.png").write_bytes((other / "a_mask.png").read_bytes())
    assert agreement.of_masks(one, other) == "other files"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["many", "peers"])
def test_a_part_runs_in_small_without_data(part, tmp_path):
    if part == "peers":
        pytest.importorskip("onnxscript")
        pytest.importorskip("onnxruntime")
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "inference_speed.py"), "--tiny", "--only", part],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"- {part}: " in done.stdout
    assert not list(tmp_path.iterdir())
