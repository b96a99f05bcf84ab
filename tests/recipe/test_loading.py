from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from clippy_cli.errors import ClippyError
from clippy_cli.model.choices import Pooling
from clippy_cli.model.registry import load_architecture
from clippy_cli.recipe.loading import changed_fields, dump_recipe, find_recipe, load_recipe, shipped_recipes
from clippy_cli.recipe.schema import ModelRecipe

GOOD = """\
name: tiny
output: runs/tiny
model:
  architecture: clippy-nano
  image: {init: random}
data:
  source: {kind: scenes, count: 100}
train:
  epochs: 2
  batch_size: 10
  lr: 1e-3
"""


@pytest.fixture
def write(tmp_path: Path):
    def write_recipe(text: str) -> str:
        path = tmp_path / "r.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write_recipe


def problems(path: str, *overrides: str) -> list[str]:
    with pytest.raises(ClippyError) as caught:
        load_recipe(path, overrides)
    return caught.value.message.replace(path, "r.yaml").splitlines()[1:]


def test_exponents_without_a_dot_are_numbers_in_the_file_and_in_overrides(write) -> None:
    recipe = load_recipe(write(GOOD), ["train.weight_decay=1e-2"])
    assert (recipe.train.lr, recipe.train.weight_decay) == (1e-3, 1e-2)


def test_every_error_is_reported_at_once_with_line_field_and_what_is_allowed(write) -> None:
    bad = """\
name: my run
output: runs/x
model:
  architecture: clippy-nano
  poolin: max
  image: {init: randm, freeze: trnk}
data:
  source: {kind: shard, paths: x.tar}
  flip: maybe
train:
  epochs: 3
  steps: 4
  batch_size: -3
  lr: fast
lr: 3
"""
    found = problems(write(bad), "train.sed=1", "data.workers=many", "seed=[1", "name.x=1", "seed")
    expected = [
        ("r.yaml:1 ", "name: must match", "given: 'my run'"),
        ("r.yaml:5 ", "model.poolin: unknown field; did you mean model.pooling?"),
        ("r.yaml:6 ", "model.image.init: must be random, pretrained", "given: 'randm'"),
        ("r.yaml:6 ", "model.image.freeze: must be 'none', 'trunk' or 'all', given: trnk; did you mean trunk?"),
        (
            "r.yaml:8 ",
            "data.source.kind: must be 'shards', 'table', 'class_folders', 'scenes', 'mixture', given: shard; "
            "did you mean shards?",
        ),
        ("r.yaml:9 ", "data.flip", "given: 'maybe'", "mirror half of the images"),
        ("r.yaml:11 ", "set exactly one of train.epochs and train.steps"),
        ("r.yaml:13 ", "train.batch_size: must be greater than or equal to 2, given: -3"),
        ("r.yaml:14 ", "train.lr: must be a valid number", "given: 'fast'", "peak learning rate"),
        ("r.yaml:15 ", "lr: unknown field; did you mean", "train.lr"),
        ("--set seed=[1", "not YAML"),
        ("--set name.x=1", "name is a single value"),
        ("--set seed:", "write it as section.field=value"),
        ("--set train.sed=1 ", "train.sed: unknown field"),
        ("--set data.workers=many ", "data.workers", "given: 'many'"),
    ]
    for parts in expected:
        assert any(all(part in line for part in parts) for line in found), (parts, found)
    assert len(found) == len(expected), found


@pytest.mark.parametrize("field", ["lr", "weight_decay", "max_logit_scale", "logit_bias_init", "words.weight"])
@pytest.mark.parametrize("value", [".nan", ".inf", "1e400"])
def test_numbers_are_finite(write, field: str, value: str) -> None:
    (found,) = problems(write(GOOD), f"train.{field}={value}")
    assert f"train.{field}: must be" in found


def test_overrides_may_be_a_mapping_of_values(write, tmp_path: Path) -> None:
    given = {"train.lr": 3e-4, "data.resolution": [32, 64], "output": tmp_path, "train.final": {"share": 0.5}}
    recipe = load_recipe(Path(write(GOOD)), given)
    assert (recipe.train.lr, recipe.data.resolution, recipe.output) == (3e-4, (32, 64), str(tmp_path))
    assert recipe.train.final.share == 0.5
    with pytest.raises(ClippyError, match="2 problems") as caught:
        load_recipe(write(GOOD), {"train.sed": 1, "train.batch_size": 1})
    assert "train.sed=1  train.sed: unknown field" in caught.value.message
    assert "train.batch_size=1  train.batch_size: must be greater" in caught.value.message


def test_a_missing_section_and_a_missing_field_are_named_once(write) -> None:
    found = problems(write("name: x\noutput: y\ndata: {source: {kind: scenes}}\ntrain: {steps: 3, batch_size: 4}\n"))
    assert len(found) == 3
    assert [line.split("  ")[-1].split(":")[0] for line in found] == ["model", "data.source.count", "train.lr"]
    assert "r.yaml:4" in found[2] and "for example 0.001" in found[2]


def test_checks_between_fields_are_reported_beside_wrong_fields(write) -> None:
    text = GOOD + "evaluate: {scenes: -1}\n"
    found = problems(write(text), "data.cache_features=true", "data.crop_scale=[0.5, 1]")
    assert any("evaluate.scenes" in line for line in found)
    assert any("cached features cannot follow random crops" in line for line in found)
    assert any("model.image.freeze: trunk" in line for line in problems(write(GOOD), "data.cache_features=true"))


def test_a_wrong_field_does_not_cause_a_second_complaint(write) -> None:
    assert len(problems(write(GOOD.replace("epochs: 2", "epochs: none")))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n", "this is not YAML"),
        ("- 1\n- 2\n", "not fields"),
        ("", "not fields"),
        ("a: &x [*x]\n", "or for themselves"),
        (GOOD + "name: again\n", "this field is given twice"),
    ],
)
def test_broken_files_are_errors_with_a_place(write, text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(ClippyError, match=message) as caught:
        load_recipe(path)
    assert path in caught.value.message


def test_aliases_that_multiply_stay_small(write) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    found = problems(write("\n".join(["l0: &l0 [x]", *levels]) + "\n"))
    assert all(len(line) < 300 for line in found)


def test_environment_variables_and_home_are_expanded_and_must_be_set(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPPY_DATA", "/data")
    monkeypatch.setenv("HOME", "/home/me")
    shards = "data.source={kind: shards, paths: '${CLIPPY_DATA}/t-{0..3}.tar'}"
    recipe = load_recipe(write(GOOD), [shards, "output=~/runs", "model.image.init=~/w.safetensors"])
    assert recipe.data.source.paths == ("/data/t-{0..3}.tar",)
    assert (recipe.output, recipe.model.image.init) == ("/home/me/runs", "/home/me/w.safetensors")
    monkeypatch.delenv("CLIPPY_DATA")
    (found,) = problems(write(GOOD), shards)
    assert "CLIPPY_DATA is not set" in found and "data.source.paths" in found


@pytest.mark.parametrize("place", ["source", "validation"])
def test_what_a_mixture_cannot_hold_is_named_where_it_stands(write, place: str) -> None:
    remote = "{source: {kind: shards, paths: 'https://host/0.tar', samples: 5}}"
    (found,) = problems(write(GOOD), f"data.{place}={{kind: mixture, parts: [{remote}]}}")
    assert f"data.{place}.parts: shards behind URLs" in found
    several = problems(write(GOOD), f"data.{place}={{kind: mixture, parts: [{remote[:-1]}, repeat: {10**30}}}]}}")
    assert any("repeat: must be less than or equal to 1000" in line for line in several)


def test_an_override_replaces_a_section_and_creates_one(write) -> None:
    recipe = load_recipe(write(GOOD), ["data.source={kind: scenes, count: 5}", "evaluate.scenes=7"])
    assert (recipe.data.source.count, recipe.evaluate.scenes) == (5, 7)


def test_the_resolved_recipe_reads_back_as_itself(write, tmp_path: Path) -> None:
    recipe = load_recipe(write(GOOD), ["data.crop_scale=[0.9, 1]"])
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_recipe(recipe, first_line="clippy train x"), encoding="utf-8")
    assert load_recipe(str(resolved)) == recipe
    assert resolved.read_text(encoding="utf-8").startswith("# clippy train x\n")


def test_changed_fields_are_those_that_alter_the_course(write) -> None:
    before = load_recipe(write(GOOD)).model_dump(mode="json")
    other = ["train.lr=1", "data.source.count=9", "output=elsewhere", "data.workers=0", "train.keep_checkpoints=9"]
    after = load_recipe(write(GOOD), other).model_dump(mode="json")
    assert changed_fields(before, after) == ["data.source.count", "train.lr"]
    table = load_recipe(write(GOOD), ["data.source={kind: table, path: a.csv}"]).model_dump(mode="json")
    assert "data.source.kind" in changed_fields(before, table)


def test_shipped_recipes_validate_and_start_with_their_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPPY_DATA", "/data")
    monkeypatch.setenv("HQITP_SHARDS", "s3://bucket/{00000..00009}.tar")
    shipped = shipped_recipes()
    tables = {"cc12m", "cc12m-clip-baseline", "cc12m-align-b5", "cc12m-full-tokens", "hqitp-134m"}
    pooling, init = {"cc12m-avg", "cc12m-cls"}, {"cc12m-init-in1k", "cc12m-init-random"}
    without_t5 = {"cc12m-no-t5", "cc12m-no-t5-in1k", "cc12m-no-t5-random"}
    assert {"quickstart", "flickr8k", "cc12m-lit", "cc12m-siglip"} | tables | pooling | init | without_t5 <= set(
        shipped
    )
    for name, path in shipped.items():
        recipe = load_recipe(name)
        assert recipe.output == f"runs/{name}"
        assert recipe.name == name or name == "flickr8k"
        load_architecture(recipe.model.architecture)
        launch = rf"# (\w+=\S+ )?(clippy|torchrun .*-m clippy_cli) train recipes/{name}\.yaml\b.*"
        assert re.fullmatch(launch, path.read_text(encoding="utf-8").splitlines()[0])


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name.startswith("cc12m-")])
def test_a_variant_of_cc12m_differs_from_it_in_what_its_name_says_only(name: str, monkeypatch) -> None:
    monkeypatch.setenv("CLIPPY_DATA", "/data")
    differ = {
        "avg": {"model.pooling"},
        "cls": {"model.pooling"},
        "init-in1k": {"model.architecture"},
        "init-random": {"model.image.init"},
        "no-t5": {"model.text.init"},
        "no-t5-in1k": {"model.architecture", "model.text.init"},
        "no-t5-random": {"model.image.init", "model.text.init"},
        "full-tokens": {"data.resolution", "train.drop_rate"},
        "lit": {"model.image.freeze"},
        "siglip": {"train.loss", "train.logit_scale_init"},
    }
    base, variant = (load_recipe(recipe).model_dump(mode="json") for recipe in ("cc12m", name))
    found = set(changed_fields(base, variant))
    assert found == differ.get(name.removeprefix("cc12m-"), found)
    assert not any(field.startswith(("train.batch_size", "data.source")) for field in found)


def test_an_unknown_recipe_is_met_with_a_guess() -> None:
    with pytest.raises(ClippyError, match="Did you mean quickstart"):
        find_recipe("quikstart")


def test_the_schema_and_the_model_agree_on_poolings() -> None:
    assert Pooling in get_args(ModelRecipe.model_fields["pooling"].annotation)
    with pytest.raises(ClippyError, match=r"model.pooling: must be 'max', .* given: mx; did you mean max\?"):
        load_recipe("quickstart", ["model.pooling=mx"])


def test_every_field_below_a_section_is_documented() -> None:
    from clippy_cli.checked_yaml import fields_of
    from clippy_cli.recipe.schema import Recipe

    data = yaml.safe_load(GOOD)
    undocumented = [key for key, info in fields_of(Recipe, (), data) if not info.description]
    sections = [
        ("model",),
        ("model", "image"),
        ("model", "text"),
        ("data",),
        ("train",),
        ("train", "final"),
        ("train", "words"),
        ("train", "classes"),
        ("train", "self_distillation"),
    ]
    assert undocumented == [*sections, ("evaluate",), ("log",)]


LAUGH = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join([f'*{chr(97 + i)}'] * 10)}]\n" for i in range(7)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LAUGH + "name: *h\n", "stand for more than 1,000,000 values"),
        ("name: 2020-13-45\n", "a value that YAML cannot read"),
        ("name: !!float 'x'\n", "a value that YAML cannot read"),
        ("name: " + "[" * 20_000, "nested too deeply"),
        ("name: " + "x" * (5 << 20), "larger than 4 MiB"),
    ],
    ids=["laugh", "date", "float", "deep", "large"],
)
def test_files_that_take_time_or_memory_are_refused(write, text: str, says: str) -> None:
    with pytest.raises(ClippyError, match=says):
        load_recipe(str(write(text)))


@pytest.mark.parametrize("value", ["2020-13-45", "[" * 5000, "!!int x"])
def test_overrides_that_are_no_yaml_are_named(write, value: str) -> None:
    with pytest.raises(ClippyError, match="the value is not YAML"):
        load_recipe(str(write(GOOD)), [f"train.lr={value}"])
