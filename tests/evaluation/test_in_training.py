"""What a run measures meanwhile is what the evaluator measures, and the run does not notice."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation import in_training
from clippy_cli.evaluation.in_training import periodic_evaluation
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.run import Progress
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.processes import Processes
from clippy_cli.recipe.loading import load_recipe
from tests.conftest import nano_model
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.image_sets import Captioned, Cloths, Flags, Outlines, halves

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def recipe(*overrides: str):
    return load_recipe("quickstart", ["evaluate.scenes=0", "data.resolution=32", *overrides])


class Second(Processes):
    first = False


@pytest.fixture
def sets(monkeypatch):
    """Sets of every kind, by name."""
    known = {
        "flags": Flags([halves(0, 1), halves(1, 0), None]),
        "cloths": Cloths([(RED, 0), (BLUE, 1)]),
        "captioned": Captioned([(RED, ("red cloth", "green cloth")), (GREEN, ("green cloth",))]),
    }
    monkeypatch.setattr(in_training, "open_benchmark", lambda name, root: known[name])
    return known


def test_each_kind_of_set_gives_its_figures_and_leaves_whole_results(sets, tmp_path: Path, caplog) -> None:
    shown = []

    @contextmanager
    def show(name):
        shown.append([name, 0])
        yield Progress(lambda before, left: None, lambda: shown[-1].__setitem__(1, shown[-1][1] + 1))

    wanted = recipe("evaluate.sets=[flags, cloths, captioned]", "evaluate.best=captioned.text_to_image_r1")
    evaluate = periodic_evaluation(wanted, Processes(), tmp_path, show)
    model = ColourModel()
    figures = evaluate(model, 7)
    assert figures == evaluate.figures and evaluate.step == 7
    assert figures["flags.miou"] == pytest.approx(1 / 3)  # one of two readable flags is named the wrong way round
    assert figures["cloths.top1"] == 0.5
    assert figures["captioned.image_to_text_r1"] == 0.5  # the green cloth's caption ties with one that is not its own
    assert figures["captioned.text_to_image_r1"] == pytest.approx(2 / 3)
    assert len(figures) == 4 and shown == [["flags", 3], ["cloths", 2], ["captioned", 2]]
    assert "1 images of flags could not be used" in caplog.text and "torn" in caplog.text
    written = json.loads((tmp_path / "evaluations" / "step-00000007.json").read_text(encoding="utf-8"))
    assert [entry["metrics"] for entry in written["results"]] == [entry.metrics for entry in evaluate.results]
    assert written["results"][0]["protocol"]["name"] == "clippy" and written["step"] == 7


def test_it_measures_what_the_evaluator_measures_and_leaves_training_as_it_was(tmp_path: Path) -> None:
    model = nano_model()
    model.requires_grad_(True)
    model.image.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = {name: value.requires_grad for name, value in model.named_parameters()}
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    evaluate = periodic_evaluation(recipe("evaluate.scenes=3"), Processes(), tmp_path)
    figures = evaluate(model, 1)
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert str(np.random.get_state()) == states[2]  # noqa: NPY002
    assert torch.is_grad_enabled() and not model.training
    assert flags == {name: value.requires_grad for name, value in model.named_parameters()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    scenes = SceneBenchmark(3, model.preprocess.resolution)
    (direct,) = evaluate_set(model, scenes, load_protocol("clippy"), tasks=("segment",)).results
    assert figures == {"scenes.miou": direct.metrics["miou"]}
    assert evaluate.results[0].confusion == direct.confusion


def test_only_the_first_process_writes_and_a_full_disk_does_not_end_training(sets, tmp_path: Path, caplog) -> None:
    evaluate = periodic_evaluation(recipe("evaluate.sets=cloths"), Processes(), tmp_path / "file")
    (tmp_path / "file").write_text("no folder")
    assert evaluate(ColourModel(), 1) == {"cloths.top1": 0.5}
    assert "cannot be written" in caplog.text
    periodic_evaluation(recipe("evaluate.sets=cloths"), Second(), tmp_path / "run")(ColourModel(), 1)
    assert not (tmp_path / "run").exists()


def test_regions_of_annotators_are_measured_by_their_covering(sets, tmp_path: Path) -> None:
    sets["outlines"] = Outlines([[halves(0, 1)]])
    figures = periodic_evaluation(recipe("evaluate.sets=outlines"), Processes(), tmp_path)(nano_model(), 1)
    assert 0 < figures["outlines.covering"] <= 1


def test_a_limit_takes_the_first_images(sets, tmp_path: Path) -> None:
    evaluate = periodic_evaluation(recipe("evaluate.sets=cloths", "evaluate.limit=1"), Processes(), tmp_path)
    assert evaluate(ColourModel(), 1) == {"cloths.top1": 1.0}


def test_no_sets_no_evaluation(tmp_path: Path) -> None:
    assert periodic_evaluation(recipe(), Processes(), tmp_path) is None


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["evaluate.sets=cloths", "evaluate.best=cloths.top5"], "Did you mean cloths.top1"),
        (["evaluate.sets=cloths", "evaluate.protocol=clipy"], "did you mean 'clippy'"),
        (["evaluate.sets=scenes", "evaluate.scenes=3"], "Two sets to evaluate are called scenes"),
        (["evaluate.sets=[flags, flag]"], "Two sets to evaluate are called flags"),
    ],
)
def test_mistakes_are_found_before_training(sets, tmp_path: Path, overrides, says: str) -> None:
    sets["flag"], sets["scenes"] = sets["flags"], SceneBenchmark(3, 32)
    with pytest.raises(ClippyError, match=says):
        periodic_evaluation(recipe(*overrides), Processes(), tmp_path)


def test_a_missing_set_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(ClippyError, match="voc20"):
        periodic_evaluation(recipe("evaluate.sets=voc20", f"evaluate.data_root={tmp_path}"), Processes(), tmp_path)
