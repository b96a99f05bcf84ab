"""Evaluations whose figures can be worked out by hand: counts, failures, protocols, tasks."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation import set_evaluation
from clippy_cli.evaluation.evaluate import Host
from clippy_cli.evaluation.evaluate import evaluate as evaluate_models
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.run import Progress
from clippy_cli.evaluation.set_evaluation import evaluate_set
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks import parse_tasks, tasks_of_sets
from clippy_cli.evaluation.tasks.base import Options
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.image_sets import Captioned, Cloths, Flags, Outlines, halves

HALF = 48 * 24
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def evaluate(images, *tasks, protocol="clippy", **changes):
    return evaluate_set(ColourModel(), images, load_protocol(protocol), tasks=tasks, **changes)


def test_counts_over_the_set_and_leaves_out_what_cannot_be_read():
    seen = []
    images = Flags([halves(0, 1), None, halves(0, 0), halves(255, 1)])
    progress = Progress(lambda before, left: seen.append((before, left)), lambda: seen.append("image"))
    evaluated = evaluate(images, "segment", progress=progress)
    (result,) = evaluated.results
    assert result.confusion == ((0, 0, 2 * HALF), (0, 1, HALF), (1, 1, 2 * HALF))
    assert [entry.score for entry in result.classes] == [pytest.approx(2 / 3)] * 2
    assert [entry.count for entry in result.classes] == [3 * HALF, 2 * HALF]
    assert result.metrics == {
        "miou": pytest.approx(2 / 3),
        "pixel_accuracy": pytest.approx(4 / 5),
        "mean_class_accuracy": pytest.approx((2 / 3 + 1) / 2),
    }
    assert (result.data.images, result.data.available, result.data.subset) == (3, 4, True)
    assert result.data.failed == ("flag 1 is torn",)
    assert [record.error is None for record in evaluated.records["segment"]] == [True, False, True, True]
    assert seen == [(0, 4), *["image"] * 4]


def test_context_words_and_thresholds_make_background():
    images = Flags([halves(1, 0)], classes=("green", "red"), background=0, context=("blue",))
    (words,) = evaluate(images, "segment").results
    assert words.metrics["miou"] == 1.0 and words.protocol["background"] == "2 words count as 'green'"
    blue = Flags([halves(1, 0)], classes=("none", "red", "green"), background=0)
    (threshold,) = evaluate(blue, "segment", overrides=Overrides(background="0.6")).results
    # Between the patch centres at 20 and 28 red falls to nothing, so that four columns too many are still red.
    assert threshold.metrics["pixel_accuracy"] == pytest.approx(44 / 48)
    assert threshold.absent == ("green",) and threshold.protocol["name"] == "clippy, changed: background"


def test_ignored_images_and_empty_sets_have_no_figures():
    (result,) = evaluate(Flags([halves(255, 255)]), "segment").results
    assert set(result.metrics.values()) == {None} and result.data.images == 1
    assert [entry.score for entry in result.classes] == [None, None] and result.absent == ("red", "blue")
    segment, group = evaluate(Flags([None, None]), "segment", "group").results
    assert set(segment.metrics.values()) | set(group.metrics.values()) == {None}


def test_groups_find_the_two_halves():
    images = Flags([halves(0, 1), halves(0, 0)])
    (result,) = evaluate(images, "group", options=Options(groups=2, method="kmeans")).results
    # The second flag is one segment, of which the better group covers half.
    assert result.metrics == {"jaccard": pytest.approx(0.75), "average_best_overlap": pytest.approx(0.75)}
    assert result.protocol["segments"] == "classes of each image" and result.protocol["groups"] == 2


def test_outlines_of_several_people():
    images = Outlines([(halves(0, 1), halves(0, 0))])
    images.info = replace(images.info, name="bsds500", catalogued=True)
    (result,) = evaluate(images, options=Options(groups=2, method="kmeans")).results
    pixels = 48 * 48
    joined = (HALF * (HALF - 1)) / (pixels * (pixels - 1) / 2)
    assert result.task == "group"
    assert result.metrics == {
        "jaccard": pytest.approx(0.75),
        "average_best_overlap": pytest.approx(0.75),
        "covering": pytest.approx((1 + 0.5) / 2),
        "covering_pooled": pytest.approx((1 + 0.5) / 2),
        "probabilistic_rand_index": pytest.approx((1 + joined) / 2),
        "variation_of_information": pytest.approx(0.5),
    }


def test_clusters_of_the_whole_set_are_matched_with_classes():
    images = Flags([halves(1, 0), halves(1, 0), halves(1, 255)])
    (result,) = evaluate(images, "cluster").results
    assert result.metrics == {"hungarian_miou": 1.0, "hungarian_pixel_accuracy": 1.0}
    (more,) = evaluate(images, "cluster", options=Options(clusters=1)).results
    assert more.metrics["hungarian_pixel_accuracy"] == pytest.approx(3 / 5)
    (extra,) = evaluate(images, "cluster", options=Options(clusters=3)).results
    assert list(extra.metrics)[2:] == ["hungarian_miou_extra_dropped", "hungarian_pixel_accuracy_extra_dropped"]
    assert "extra clusters" in extra.protocol and "extra clusters" not in result.protocol


def test_classification_counts_classes_and_ties():
    images = Cloths([(RED, 0), (RED, 0), (GREEN, 2), (BLUE, 2), ((128, 0, 128), 0)])
    (result,) = evaluate(images).results
    # Purple is as near to red as to blue, and a tie is no hit.
    assert result.metrics == {
        "top1": pytest.approx(3 / 5),
        "mean_per_class_accuracy": pytest.approx((2 / 3 + 1 / 2) / 2),
    }
    assert [entry.count for entry in result.classes] == [3, 0, 2] and result.absent == ("green",)
    assert sum(count for _, _, count in result.confusion) == 5


def test_retrieval_both_ways_with_several_captions():
    images = Captioned([(RED, ("red", "green")), (GREEN, ("green blue",)), (None, ("red",)), (BLUE, ("blue",))])
    evaluated = evaluate(images)
    (result,) = evaluated.results
    # "green" belongs to the red cloth: its nearest image is the green one. The torn image takes its caption along.
    assert result.data.failed == ("image 2 is torn",)
    assert result.metrics["text_to_image_r1"] == pytest.approx(2 / 4)
    assert result.metrics["image_to_text_r1"] == pytest.approx(2 / 3)
    assert result.metrics["image_to_text_r5"] == result.metrics["text_to_image_r10"] == 1.0
    assert [record.error for record in evaluated.records["retrieve"]] == [None, None, "image 2 is torn", None]


def test_all_tasks_share_one_pass():
    images = Flags([halves(0, 1)] * 3)
    evaluated = evaluate(images, "segment", "group", options=Options(groups=2))
    assert images.reads == [0, 1, 2] and [result.task for result in evaluated.results] == ["segment", "group"]
    assert len({result.model.fingerprint for result in evaluated.results}) == 1


def test_published_figures_say_what_keeps_them_from_being_compared(monkeypatch):
    classes = tuple(load_spec("voc20").classes)
    images = Flags([halves(0, 1)] * 3, name="voc20", complete=3, classes=classes)
    images.info = replace(images.info, catalogued=True, split="val")
    (part,) = evaluate(images, "segment", options=Options(limit=2), protocol="sclip").results
    assert part.data.subset and part.published and not any(figure.comparable for figure in part.published)
    assert all(figure.why_not.startswith("2 of 3 images") for figure in part.published)
    (whole,) = evaluate(images, "segment", protocol="sclip").results
    assert whole.data.split == "val"
    (sclip,) = [figure for figure in whole.published if figure.model == "SCLIP"]
    assert not sclip.comparable and sclip.why_not == "positions: native (ours: the model's own)"
    # Nothing but the values of the conditions decides: ours set to SCLIP's, the figure compares.
    monkeypatch.setattr(set_evaluation, "measured_with", lambda setup, task: sclip.conditions)
    (same,) = evaluate(images, "segment", protocol="sclip").results
    assert [figure.model for figure in same.published if figure.comparable] == ["SCLIP"]


def test_a_set_of_ones_own_has_no_published_figures():
    images = Flags([halves(0, 1)], name="voc20", complete=1)
    assert evaluate(images, "segment", protocol="sclip").results[0].published == ()


def test_windows_of_the_whole_image_change_nothing():
    images = Flags([halves(0, 1)])
    plain = evaluate(images, "segment").results[0]
    windowed = evaluate(images, "segment", overrides=Overrides(window=24, stride=8)).results[0]
    assert windowed.confusion == plain.confusion and windowed.protocol["window"].startswith("24 at stride 8")


def test_sharper_masks_are_named():
    images = Flags([halves(0, 1)], name="voc20", complete=1)
    images.info = replace(images.info, catalogued=True)
    (plain,) = evaluate(images, "segment", protocol="tcl").results
    assert (plain.protocol["scales"], plain.protocol["flip"], plain.protocol["refinement"]) == ([1.0], False, "none")
    for changes in ({"scales": (1.0, 2.0)}, {"flip": True}, {"refine": "guided"}, {"refine": "pamr"}):
        (result,) = evaluate(images, "segment", protocol="tcl", overrides=Overrides(**changes)).results
        (name,) = changes
        assert result.protocol["name"] == f"tcl, changed: {name}"
        assert result.protocol["refinement" if name == "refine" else name] in (*changes.values(), [1.0, 2.0])
        named = {"scales": "scales", "flip": "flip", "refine": "refinement"}[name]
        assert all(f"{named}: " in figure.why_not for figure in result.published if figure.model == "CLIP-DINOiser")
        assert result.metrics["miou"] == pytest.approx(plain.metrics["miou"])


def test_a_protocol_may_ask_for_sharper_masks(tmp_path):
    own = tmp_path / "sharp.yaml"
    own.write_text("resolution: 48\nscales: [1, 1.5]\nflip: true\nrefine: guided\n")
    (result,) = evaluate(Flags([halves(0, 1)]), "segment", protocol=str(own)).results
    assert (result.protocol["name"], result.protocol["refinement"]) == ("own:sharp", "guided")
    off = Overrides(scales=(1.0,), flip=False, refine="none")
    (result,) = evaluate(Flags([halves(0, 1)]), "segment", protocol=str(own), overrides=off).results
    assert (result.protocol["scales"], result.protocol["flip"], result.protocol["refinement"]) == ([1.0], False, "none")


def test_regions_give_figures_of_their_own(tmp_path):
    regions = np.zeros((48, 48), np.uint8)
    regions[:, :32] = 1
    images = Flags([halves(0, 1), halves(0, 1)])
    folder = tmp_path / images.info.name
    folder.mkdir(exist_ok=True)
    Image.fromarray(regions).save(folder / f"{images.key(0)}.png")
    evaluated = evaluate(images, "segment", "group", options=Options(regions=tmp_path, groups=2))
    plain, voted, _ = evaluated.results
    assert [result.task for result in evaluated.results] == ["segment", "segment+regions", "group"]
    assert plain.metrics["miou"] == 1.0 and plain.data.images == 2 and "regions" not in plain.protocol
    assert voted.metrics["pixel_accuracy"] == pytest.approx(40 / 48) and voted.data.images == 1
    assert "No regions for" in voted.data.failed[0] and str(tmp_path) in voted.protocol["regions"]
    assert voted.published == ()


@pytest.mark.parametrize(
    ("images", "task", "says"),
    [
        (Flags([]), "classify", "not for the whole"),
        (Outlines([]), "segment", "no names"),
        (Cloths([]), "group", "no masks"),
        (Captioned([]), "segment", "captions only"),
    ],
)
def test_tasks_that_a_set_cannot_measure(images, task, says):
    with pytest.raises(ClippyError, match=says):
        evaluate(images, task)


def test_tasks_go_to_the_sets_that_have_them():
    sets = [Flags([]), Outlines([])]
    assert tasks_of_sets(sets, ()) == [("segment", "group"), ("group",)]
    assert tasks_of_sets(sets, ("segment", "group")) == [("segment", "group"), ("group",)]
    with pytest.raises(ClippyError, match="outlines cannot measure"):
        tasks_of_sets(sets, ("segment",))
    with pytest.raises(ClippyError, match="'classify'"):
        tasks_of_sets(sets, ("group", "classify"))


def test_task_lists():
    assert parse_tasks("group, segment,group") == ("group", "segment")
    with pytest.raises(ClippyError, match="did you mean 'segment'"):
        parse_tasks("segments")


def test_models_and_sets_in_one_call():
    images, cloths, calls = Flags([halves(0, 1), None]), Cloths([(RED, 0)]), []
    host = Host(checked=lambda: calls.append("checked"), evaluated=lambda one: calls.append(list(one.tasks)))
    document = evaluate_models(
        [images, cloths],
        [ColourModel(), ColourModel()],
        tasks="segment,classify",
        overrides=Overrides(resolution=96),
        options=Options(limit=1, seed=5),
        host=host,
    )
    assert calls == ["checked", ["segment"], ["classify"], ["segment"], ["classify"]]
    assert [(one.data.name, one.task) for one in document.results] == [("flags", "segment"), ("cloths", "classify")] * 2
    direct = evaluate(images, "segment", overrides=Overrides(resolution=96), options=Options(limit=1)).results[0]
    assert document.results[0].confusion == direct.confusion and document.results[0].metrics == direct.metrics
    assert document.results[0].protocol["resolution"] == 96 and document.seed == 5
    assert document.device.startswith("cpu") and "torch" in document.versions


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sets": "vox"}, "did you mean 'voc'"),
        ({"sets": []}, "Nothing to evaluate"),
        ({"tasks": "segmnt"}, "did you mean 'segment'"),
        ({"tasks": ["group", "classify"]}, "'classify'"),
        ({"protocol": "slcip"}, "did you mean 'sclip'"),
        ({"model": "runs/none"}, "runs/none"),
        ({"model": "timm:vit_small_patch16_224.dino"}, "text"),
    ],
)
def test_mistakes_are_found_before_a_model_is_loaded(arguments, says):
    def fail(*_):
        raise AssertionError("not everything was checked")

    with pytest.raises(ClippyError, match=says):
        evaluate_models(**({"sets": Flags([]), "model": ColourModel(), "host": Host(checked=fail)} | arguments))


def test_another_model_has_another_fingerprint():
    class Other(ColourModel):
        def embed_texts(self, texts):
            return super().embed_texts(texts) + 1e-3

    images = Flags([halves(0, 1)])
    prints = {
        evaluate_set(model, images, load_protocol("clippy"), tasks=("segment",)).results[0].model.fingerprint
        for model in (ColourModel(), ColourModel(), Other())
    }
    assert len(prints) == 2


def test_masks_of_another_size_than_the_photo_are_counted_at_their_own():
    images = Flags([np.kron(halves(0, 1), np.ones((2, 2), np.uint8))])
    (result,) = evaluate(images, "segment").results
    assert sum(count for *_, count in result.confusion) == 4 * 48 * 48
    assert result.metrics["miou"] == 1.0
