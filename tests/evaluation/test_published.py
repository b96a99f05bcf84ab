"""Published figures: the right ones, and comparable only where every condition is known and equal."""

from dataclasses import fields

import pytest
from pydantic import ValidationError

from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.evaluation import conditions
from clippy_cli.evaluation.conditions import CONDITIONS, UNKNOWN, differences, measured_with
from clippy_cli.evaluation.protocol import load_protocol
from clippy_cli.evaluation.published import Literature, literature, published_for, published_waterbirds
from clippy_cli.evaluation.settings import Overrides, Settings, resolve_settings
from clippy_cli.evaluation.tasks.base import Options, Setup
from clippy_cli.model.base import Preprocess
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.image_sets import Flags, halves

ROWS = [
    pytest.param(table, row, name, id=f"{table.task}-{table.metric}-{row.model}-{name}")
    for table in literature().tables
    for row in table.rows
    for name, value in zip(table.sets, row.values, strict=True)
    if value is not None
]


def names(task):
    return [condition.name for condition in CONDITIONS if task in condition.tasks]


def figure(table, row, name, ours, **more):
    found = published_for(name, table.task, table.metric, ours=ours, **more)
    source = literature().sources[row.source].cite
    (one,) = [f for f in found if f.model == row.model and f.source.startswith(source)]
    return one


@pytest.mark.parametrize(("table", "row", "name"), ROWS)
def test_a_figure_is_comparable_only_where_all_is_known_and_equal(table, row, name):
    theirs = literature().measured_with(row.conditions, name)
    ours = {key: theirs.get(key, "anything") for key in names(table.task)}
    unknown = [key for key in names(table.task) if theirs.get(key, UNKNOWN) == UNKNOWN]
    same = figure(table, row, name, ours)
    assert same.comparable == (not unknown)
    assert same.conditions == {key: theirs.get(key, UNKNOWN) for key in names(table.task)}
    if unknown:
        assert "not known: " in same.why_not
        assert len(unknown) == len(ours) or all(key.replace("_", " ") in same.why_not for key in unknown)
    for key in set(ours) - set(unknown):
        (reason, *_) = differences(theirs, ours | {key: "another"})
        assert reason.startswith(f"{key.replace('_', ' ')}: ") and reason.endswith("(ours: another)")
    part = figure(table, row, name, ours, incomplete="126 of 1,449 images")
    assert not part.comparable and part.why_not.startswith("126 of 1,449 images")


def test_every_setting_is_compared_or_said_to_change_nothing():
    read = {name for condition in CONDITIONS for name in condition.reads}
    of_ours = {field.name for kind in (Settings, Options) for field in fields(kind)}
    assert read | set(conditions.NO_CONDITION) == of_ours
    assert not read & set(conditions.NO_CONDITION)


class Native(ColourModel):
    """Trained at 224 pixels, as CLIP's and CLIPpy's B/16."""

    preprocess = Preprocess((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 16, resolution=224)


def voc(protocol="clippy", model=None, name="voc", **overrides):
    """A set of the catalogue, its images replaced by flags."""
    spec, model = load_spec(name).as_catalogued(), model or ColourModel()
    images = Flags([halves(0, 1)], background=spec.background_index())
    images.classes, images.context, images.info = spec.benchmark_classes(), spec.context, spec.info(name, None)
    settings = resolve_settings(load_protocol(protocol), images.info, model, Overrides(**overrides))
    return measured_with(Setup(model, images, settings, Options()), "segment")


def test_ours_is_what_was_really_used():
    plain, changed = voc(), voc(resolution=96, window=48, stride=24, background="words+0.2", refine="pamr", flip=True)
    assert plain["words"] == "60 texts in 21 classes (e66f9f7f561d)"  # those of the authors' public code
    assert (plain["split"], plain["templates"], plain["competition"]) == ("val", ("photo",), "no synonyms")
    assert (plain["window"], plain["positions"], plain["logit_scale"]) == ("none", "the model's own", "not used")
    moved = {key: value for key, value in changed.items() if value != plain[key]}
    assert moved == {
        "resolution": 96,
        "window": 48,
        "stride": 24,
        "window_average": "patches",
        "positions": "native",
        "flip": True,
        "background": "words and probability below 0.2",
        "logit_scale": "the model's",
        "refinement": "pamr, 10 steps, dilations 1 2 4 8 12 24",
    }
    assert voc(templates="a photo of a/an {}")["templates"] == ("photo",)


def test_words_and_rules_of_protocol_sclip_are_those_of_its_public_code():
    ours, theirs = voc("sclip", templates="photo"), literature().measured_with("sclip", "voc")
    rules = ("words", "competition", "background", "min_area", "logit_scale", "resolution", "window")
    assert {key: ours[key] for key in rules} == {key: theirs[key] for key in rules}
    assert load_protocol("sclip").templates == theirs["templates"] == ("openai",)


def test_what_the_released_checkpoint_was_measured_with_is_what_the_notebooks_protocol_does():
    (released,) = published_for("voc-train", "segment", "miou", ours=voc("clippy-notebook", Native(), "voc-train"))
    assert released.value == 42.1 and released.comparable, released.why_not
    (plain,) = published_for("voc-train", "segment", "miou", ours=voc("clippy", Native(), "voc-train"))
    assert not plain.comparable and "masks squashed" in plain.why_not and "center crop" in plain.why_not
    found = {f.model: f for f in published_for("voc", "segment", "miou", ours=voc())}
    assert "CLIPpy B/16 (released checkpoint)" not in found
    paper = found["CLIPpy B/16 (CC-12M)"]
    assert paper.value == 50.8 and paper.why_not == "not known: how it was measured"
    assert "second-hand" in found["SCLIP"].source and "primary" in found["SCLIP"].conditions_from


@pytest.mark.parametrize(
    "name", ["voc", "voc20", "context60", "context59", "coco-object", "coco-stuff", "cityscapes", "ade20k"]
)
def test_protocol_sclip_is_what_sclip_was_measured_with(name):
    found = {f.model: f for f in published_for(name, "segment", "miou", ours=voc("sclip", Native(), name))}
    assert found["SCLIP"].comparable, found["SCLIP"].why_not
    same = {model for model, figure in found.items() if figure.comparable}
    assert same <= {"SCLIP", "NACLIP"}  # where NACLIP's configuration is SCLIP's
    quick = published_for(name, "segment", "miou", ours=voc("sclip", Native(), name, window_average="patches"))
    reasons = {f.model: f.why_not for f in quick}["SCLIP"]
    assert "window average: pixels (ours: patches)" in reasons and "sizing: " in reasons


def test_comparable_figures_come_first():
    found = published_for("voc", "segment", "miou", ours=literature().measured_with("sclip", "voc"))
    assert [f.model for f in found if f.comparable] == ["SCLIP"] and found[0].comparable


def test_the_metric_and_the_task_count():
    assert published_for("voc", "group", "abo", ours=voc()) == ()
    assert published_for("voc", "cluster", "miou", ours=voc()) == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values": [1.0]}, "needs 2 values"),
        ({"conditions": "other"}, "no conditions are called other"),
        ({"conditions": "odd"}, "colour is no condition"),
        ({"conditions": "loop"}, "like must name an entry above it"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(change, says):
    row = {"model": "m", "source": "s", "conditions": "c", "values": [1.0, 2.0]} | change
    known: dict[str, dict[str, object]] = {"c": {}, "odd": {"fields": {"colour": "red"}}, "loop": {"like": "loop"}}
    content = {
        "sources": {"s": {"cite": "c", "read": "primary"}},
        "conditions": {
            name: {"where": "w", "read": "primary", **known[name]}
            for name in {"c": 0, row["conditions"]: 0}
            if name in known
        },
        "tables": [{"task": "segment", "metric": "miou", "sets": ["voc", "coco"], "rows": [row]}],
    }
    with pytest.raises(ValidationError, match=says):
        Literature.model_validate(content)


def test_waterbirds_figures_say_how_they_were_made_and_why_they_are_not_ours():
    rows = {row.model: row for row in published_waterbirds()}
    assert (rows["CLIPpy"].water_on_water, rows["CLIPpy"].water_on_land) == (76.9, 74.9)
    clip = rows["CLIP, by CLIPpy's authors"]
    assert (clip.water_on_water, clip.water_on_land) == (80.2, 48.1)
    assert {row.model: row.worst_group for row in rows.values() if row.made == "supervised"} == {
        "ERM": 74.9,
        "JTT": 86.7,
        "GroupDRO": 91.4,
        "DFR": 92.9,
    }
    assert (rows["CLIP B/32"].made, rows["CLIP B/32"].average, rows["CLIP B/32"].worst_group) == (
        "zero-shot",
        80.7,
        27.9,
    )
    assert all("arXiv" in row.source and row.why_not for row in rows.values())
