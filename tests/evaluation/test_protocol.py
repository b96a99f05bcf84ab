"""Protocols: what a file says, what the command line changes, what is then really used."""

from dataclasses import replace

import pytest

from clippy_cli.data.benchmarks.base import BenchmarkClass
from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.data.prompts import resolve_templates
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.protocol import load_protocol, protocol_names
from clippy_cli.evaluation.settings import (
    Overrides,
    class_entries,
    describe_background,
    resolve_settings,
    segmentation_rule,
)
from clippy_cli.inference.choices import Competition
from clippy_cli.inference.segment import Rule
from clippy_cli.model.patch_forms import with_positions
from tests.fixtures.colour_model import ColourModel
from tests.fixtures.image_sets import Flags, halves


def flags(**changes):
    images = Flags([halves(0, 1)], **{"classes": ("green", "red"), "background": 0, "context": ("blue",), **changes})
    images.info = replace(images.info, catalogued=True)
    return images


def settled(protocol, images=None, **overrides):
    return resolve_settings(load_protocol(protocol), (images or flags()).info, ColourModel(), Overrides(**overrides))


def test_the_papers_protocol_leaves_resolution_to_the_model():
    settings = settled("clippy")
    assert (settings.resolution, settings.window, settings.templates) == (48, None, resolve_templates("photo"))
    assert settled("clippy", resolution=96).protocol_name == "clippy"
    assert settled("clippy", templates="none").protocol_name == "clippy, changed: templates"
    assert settled("clippy", flags(name="scenes")).template_names == (ColourModel.defaults.templates,)
    wanted = class_entries(flags(), settings)
    assert (wanted.texts, wanted.codes) == (("green", "red", "blue"), (0, 1, 0))
    assert segmentation_rule(flags(), settings) == Rule(10.0)
    assert describe_background(flags(), settings) == "2 words count as 'green'"


def test_synonyms_are_one_entry_unless_the_protocol_lets_texts_compete():
    images = Flags([halves(0, 1)], classes=("sky", "red"), background=0, context=("wall",))
    images.classes = (images.classes[0], BenchmarkClass("red", ("red", "crimson")))
    settings = settled("clippy", images)
    assert class_entries(images, settings).sizes == (1, 2, 1)
    apart = replace(settings, competition=Competition.TEXTS)
    assert class_entries(images, apart).sizes == (1, 1, 1, 1) and class_entries(images, apart).codes == (0, 1, 1, 0)
    assert settled("sclip").competition is Competition.TEXTS and settled("tcl").competition is Competition.ENTRIES


def test_tcl_asks_for_no_background():
    settings = settled("tcl")
    assert (settings.resolution, settings.window, settings.stride) == (448, 448, 224)
    assert len(settings.templates) == 9
    assert class_entries(flags(), settings).texts == ("red",)
    assert segmentation_rule(flags(), settings) == Rule(10.0, threshold=0.4, fallback=0)
    assert segmentation_rule(flags(background=None, context=()), settings) == Rule(10.0)


def test_sclip_has_words_and_a_threshold_and_its_own_rules_for_single_sets():
    settings = settled("sclip")
    assert (settings.resolution, settings.window, settings.stride, settings.logit_scale) == (336, 224, 112, 40)
    assert len(settings.templates) == 80
    assert settled("sclip", flags(name="cityscapes")).resolution == 560
    voc = settled("sclip", flags(name="voc"))
    assert (voc.logit_scale, voc.min_area, len(voc.classes["background"])) == (65, 0.1, 26)
    names = tuple(load_spec("voc").classes)
    images = Flags([halves(0, 1)], classes=names, background=0, context=("wall",), name="voc")
    wanted = class_entries(images, voc)
    assert wanted.texts.count("wall") == 1 and wanted.codes.count(0) == 26 and wanted.texts[-1] == "screen"
    with pytest.raises(ClippyError, match=r"boat.*not among the classes"):
        class_entries(flags(name="voc"), voc)


def test_a_set_of_ones_own_takes_no_rule_of_a_shipped_protocol_by_its_name():
    images = flags(name="cityscapes")
    images.info = replace(images.info, catalogued=False)
    assert settled("sclip", images).resolution == 336


def test_something_must_be_left_to_ask_for():
    alone = flags(classes=("green",), context=())
    with pytest.raises(ClippyError, match="No class of flags is asked for"):
        class_entries(alone, settled("clippy", alone, background="0.4"))


def test_the_command_line_wins():
    settings = settled("sclip", window=0, background="words")
    assert (settings.window, settings.stride, settings.threshold) == (None, None, None)
    settings = settled("clippy", window=30, stride=11, background="words+0.2")
    assert (settings.window, settings.stride, settings.threshold) == (32, 8, 0.2)
    assert settled("clippy", window=26, stride=21).stride == 24
    assert settled("clippy", background="0.5").background == "threshold"


@pytest.mark.parametrize("text", ["", "2", "-0.1", "word+0.1", "words+", "words+x", "nan", "words+0.1+0.2"])
def test_background_rules_that_say_nothing(text):
    with pytest.raises(ClippyError, match="--background cannot be"):
        settled("clippy", background=text)


def test_strides_that_make_no_sense():
    with pytest.raises(ClippyError, match="--stride needs windows"):
        settled("clippy", stride=16)
    with pytest.raises(ClippyError, match="leaves gaps"):
        settled("clippy", window=32, stride=64)


def test_own_files_are_checked_as_a_whole(tmp_path):
    own = tmp_path / "mine.yaml"
    own.write_text("resolution: 96\nbackground: threshold\nthreshold: 0.3\nsets:\n  flags: {window: 64, stride: 32}\n")
    settings = settled(str(own))
    assert (settings.protocol, settings.resolution, settings.window) == ("own:mine", 96, 64)
    own.write_text("resolution: big\ntemplate: photo\n")
    with pytest.raises(ClippyError) as caught:
        load_protocol(str(own))
    assert "resolution" in caught.value.message and "did you mean templates" in caught.value.message
    for text, says in (
        ("background: threshold\n", "needs a threshold"),
        ("sets: {flags: {background: words+threshold}}\n", "needs a threshold"),
        ("stride: 8\n", "needs a window"),
        ("window: 8\nstride: 16\n", "leaves gaps"),
        ("background: words\nthreshold: 0.1\n", "says nothing"),
        ("templates: []\n", "templates"),
        ("classes: {red: ''}\n", "classes"),
    ):
        own.write_text(text)
        with pytest.raises(ClippyError, match=says):
            load_protocol(str(own))
    with pytest.raises(ClippyError, match=r"none\.yaml"):
        load_protocol(str(tmp_path / "none.yaml"))
    with pytest.raises(ClippyError, match="did you mean 'sclip'"):
        load_protocol("sclop")


def test_every_shipped_protocol_fits_every_set_it_names():
    assert protocol_names() == ("clippy", "clippy-notebook", "dinotxt", "groupvit", "sclip", "tcl")
    for name in protocol_names():
        for set_name, rules in load_protocol(name).sets.items():
            if set_name != "scenes":
                assert set(rules.classes) <= set(load_spec(set_name).classes)


def test_a_protocols_positions_pass_by_models_without_a_table_and_the_command_line_wins(nano):
    images, model = flags(), with_positions(nano, "plain")
    assert settled("sclip").positions is None
    wanted = {
        name: resolve_settings(load_protocol(name), images.info, model, Overrides()).positions
        for name in ("sclip", "clippy")
    }
    assert wanted == {"sclip": "dino", "clippy": "plain"}
    changed = resolve_settings(load_protocol("sclip"), images.info, model, Overrides(positions="timm"))
    assert changed.positions == "timm" and changed.protocol_name == "sclip, changed: positions"


def test_the_notebooks_protocol_pools_the_class_token_for_classes_alone(nano):
    protocol = load_protocol("clippy-notebook")

    def pooled(name):
        info = replace(flags(name=name).info, catalogued=True)
        return resolve_settings(protocol, info, nano, Overrides())

    assert pooled("imagenet").template_names == ("openai",) and pooled("voc-train").template_names == ("photo",)
    assert pooled("imagenet").frame == pooled("voc-train").frame == "squashed-masks"
    assert pooled("imagenet").pool_prefix is True or nano.config.image.pooling not in ("max", "avg")
