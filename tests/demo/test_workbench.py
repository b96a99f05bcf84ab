"""What the page does with a photo, without the page."""

import numpy as np
import pytest
from PIL import Image

from clippy_cli.api import Clip
from clippy_cli.demo import markup
from clippy_cli.demo.workbench import Outcome, Row, Workbench, refinements
from clippy_cli.errors import ClippyError
from clippy_cli.reporting.model_choice import ModelChoice
from clippy_cli.reporting.palette import colour
from tests.fixtures.colour_model import ColourModel


@pytest.fixture
def bench(tmp_path):
    return Workbench(Clip(ModelChoice(ColourModel(), "colours")), tmp_path)


@pytest.fixture
def flag(tmp_path):
    """Three quarters red, one quarter blue, of 64x48 pixels."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :48, 0] = pixels[:, 48:, 2] = 255
    path = tmp_path / "my flag.png"
    Image.fromarray(pixels).save(path)
    return str(path)


def test_segment_gives_the_picture_and_the_mask_of_the_command(bench, flag):
    outcome = bench.segment(flag, "blue, red|crimson, green", "", 0, "none")
    assert [(row.name, row.fraction, row.colour) for row in outcome.rows] == [
        *(("red", 0.75, colour(2)), ("blue", 0.25, colour(1)), ("green", 0.0, None))
    ]
    assert outcome.rows[0].score > 0.9
    assert outcome.mask.name == "my_flag_mask.png"
    with Image.open(outcome.mask) as mask, Image.open(outcome.overlay) as overlay:
        np.testing.assert_array_equal(np.asarray(mask)[0], [2] * 48 + [1] * 16)
        assert overlay.height > overlay.width * 48 / 64  # the legend has its own room


def test_background_words_and_threshold_leave_pixels_unlabelled(bench, flag):
    outcome = bench.segment(flag, "red", "blue", 0, "none")
    assert [(row.name, row.fraction) for row in outcome.rows] == [("red", 0.75), ("unlabelled", 0.25)]
    nothing = bench.segment(flag, "red, blue", "", 1, "none")
    assert [row.name for row in nothing.rows] == ["unlabelled", "red", "blue"]
    assert "lower the threshold" in nothing.note
    assert "second label" in bench.segment(flag, "red", "", 0, "none").note


@pytest.mark.parametrize("method", ["guided", "pamr"])
def test_refinement_keeps_what_is_clear(bench, flag, method):
    assert method in refinements()
    outcome = bench.segment(flag, "red, blue", "", 0, method)
    assert [row.fraction for row in outcome.rows] == pytest.approx([0.75, 0.25], abs=0.03)


def test_group_and_classify(bench, flag):
    grouped = bench.group(flag, 2)
    assert grouped.rows[0].name == "group 1" and grouped.rows[0].score is None
    assert sum(row.fraction for row in grouped.rows) == pytest.approx(1)
    assert grouped.overlay.is_file() and grouped.mask.is_file()
    classified = bench.classify(flag, "green, red, blue", 2)
    assert [row.name for row in classified.rows] == ["red", "blue"]
    assert classified.overlay is None and classified.mask is None


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((None, "red", "", 0, "none"), "No photo"),
        (("{flag}", " ", "", 0, "none"), "dog|puppy, grass"),
        (("{flag}", "red,,blue", "", 0, "none"), "Empty label"),
        (("{flag}", "x" * 3000, "", 0, "none"), "at most 2000"),
        (("{text}", "red", "", 0, "none"), "notes.png: not an image"),
    ],
)
def test_what_a_user_can_mend_is_said(bench, flag, tmp_path, fields, says):
    text = tmp_path / "notes.png"
    text.write_text("no photo")
    photo = fields[0] and fields[0].format(flag=flag, text=text)
    with pytest.raises(ClippyError) as caught:
        bench.segment(photo, *fields[1:])
    assert says in str(caught.value)
    assert "--" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_a_photo_is_read_as_by_the_command(bench, tmp_path):
    """Turned by its EXIF orientation: red left of blue becomes red above blue."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, :32, 0] = pixels[:, 32:, 2] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(pixels).save(path, exif=exif)
    with Image.open(bench.segment(str(path), "red, blue", "", 0, "none").mask) as mask:
        np.testing.assert_array_equal(np.asarray(mask)[:, 0], [1] * 32 + [2] * 32)


def test_only_the_last_results_are_kept(bench, flag):
    masks = [bench.group(flag, 1).mask for _ in range(22)]
    assert [mask.is_file() for mask in masks] == [False] * 2 + [True] * 20


def test_nothing_that_a_user_writes_is_markup():
    outcome = Outcome("<b>", ("label", "share"), (Row("<script>", (1, 2, 3), 0.5),), note="<i>")
    shown = markup.result(outcome) + markup.problem(ClippyError("<img>", "<a>")) + markup.header("<u>")
    assert not any(tag in shown for tag in ("<b>x", "<script>", "<img>", "<a>", "<u>"))
    assert "&lt;script&gt;" in shown and "50.0 %" in shown and "rgb(1, 2, 3)" in shown


def test_the_workbench_needs_no_gradio():
    import subprocess
    import sys

    probe = "import sys, clippy_cli.demo.workbench, clippy_cli.demo.server; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
