"""Both readouts of a model whose answers can be seen, and what is made of them."""

import numpy as np
import pytest
from sklearn.metrics import recall_score

from clippy_cli.data.benchmarks.base import SetInfo
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.result import ModelRecord
from clippy_cli.waterbirds.dataset import PlacedBird
from clippy_cli.waterbirds.measure.answers import answer_birds, default_words, parse_words
from clippy_cli.waterbirds.measure.run import BirdQuestion, ModelRun, run_birds
from clippy_cli.waterbirds.measure.summary import summarise_birds
from tests.fixtures.colour_model import ColourModel

MODEL = ModelRecord(name="colours", source="colours", fingerprint="0")
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


class Squares:
    """A square of the bird's colour in the middle of the place's: (bird, place, colour, side of the square)."""

    info = SetInfo("squares", "Squares on grounds")
    birds, places, train_counts = ("red", "blue"), ("land", "water"), (3, 1, 1, 5)

    def __init__(self, squares):
        self.squares = squares

    def __len__(self):
        return len(self.squares)

    def key(self, index):
        return str(index)

    def read(self, index):
        if self.squares[index] is None:
            raise ClippyError("torn")
        bird, place, ground, side = self.squares[index]
        image = np.full((48, 48, 3), ground, np.uint8)
        start = 24 - side // 2
        image[start : start + side, start : start + side] = (RED, BLUE)[bird]
        return PlacedBird(self.key(index), image, bird, place)


def answers(squares, words="red,blue,green"):
    return answer_birds(ColourModel(), Squares(squares), parse_words(words), resolution=48, templates="none")


def test_patches_see_a_small_bird_that_the_whole_image_drowns():
    found = answers([(0, 0, GREEN, 16), (1, 0, (120, 255, 0), 16), (1, 1, GREEN, 32), None])
    small, drowned, large = found.answers
    assert [answer.pooled for answer in found.answers] == [0, 0, 1]
    assert [answer.patch.label for answer in found.answers] == [0, 1, 1]
    assert small.patch.votes == (4, 0, 0) and small.patch.background_share == pytest.approx(32 / 36)
    assert (drowned.group, large.group, found.failed) == (2, 3, ("torn",))
    assert found.hits("pooled").tolist() == [True, False, True] and found.hits("patch").all()


def test_an_undecided_image_is_wrong():
    (answer,) = answers([(0, 0, (255, 0, 255), 0)]).answers
    assert answer.pooled is None and not answers([(0, 0, (255, 0, 255), 0)]).hits("pooled")[0]


def test_figures_agree_with_recalls_of_single_groups():
    rng = np.random.default_rng(0)
    grounds = [GREEN, (120, 255, 0), (0, 255, 120)]
    squares = [(int(rng.integers(2)), int(rng.integers(2)), grounds[rng.integers(3)], 16) for _ in range(60)]
    found = answers(squares)
    for readout in ("pooled", "patch"):
        result = summarise_birds(
            found, MODEL, readout, 48, birds=("red", "blue"), places=("land", "water"), train_counts=(3, 1, 1, 5)
        )
        given = [a.pooled if readout == "pooled" else a.patch.label for a in found.answers]
        expected = []
        for group in range(4):
            members = [i for i, answer in enumerate(found.answers) if answer.group == group]
            truth, guesses = [squares[i][0] for i in members], [given[i] for i in members]
            expected.append(recall_score(truth, guesses, labels=[group // 2], average="macro", zero_division=0))
        accuracies = [group.accuracy for group in result.groups]
        assert accuracies == pytest.approx(expected)
        assert result.worst == pytest.approx(min(expected))
        assert result.weighted_mean == pytest.approx(np.average(expected, weights=(3, 1, 1, 5)))
        assert result.gaps[0].value == pytest.approx(expected[0] - expected[1])
        assert result.gaps[1].value == pytest.approx(expected[3] - expected[2])
        assert sum(group.count for group in result.groups) == 60
    assert result.background_share == pytest.approx(32 / 36) and result.undecided == 0


def test_words_are_three_labels():
    words = parse_words("gull|tern, wren, sea|sky")
    assert (words.texts, words.classes) == (("gull", "tern", "wren", "sea", "sky"), (0, 0, 1, 2, 2))
    assert default_words(("cat, or cats", "a|b")).texts == ("cat, or cats", "a|b", "background")
    with pytest.raises(ClippyError, match="three labels, 2"):
        parse_words("gull,wren")


def test_a_run_measures_every_model_and_resolution():
    bars = []

    class Bar:
        def __init__(self, text, total):
            bars.append((text, total))

        def __enter__(self):
            return lambda: None

        def __exit__(self, *error):
            return None

    models = ModelRun(["a", "b"], lambda source: ColourModel(), batch_size=4, workers=1, bar=Bar)
    question = BirdQuestion(parse_words("red,blue,green"), "test", (48, None, 96))
    run = run_birds(models, Squares([(0, 0, GREEN, 16), None]), question)
    assert [(r.model.source, r.readout, r.resolution) for r in run.document.results] == [
        (source, readout, size) for source in "ab" for size in (48, 48, 96) for readout in ("pooled", "patch")
    ]
    assert bars[0] == ("colours at 48", 2) and run.document.data.failed == ("torn",) and run.document.data.images == 1
