import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save_file

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model, read_weights
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.registry import SHIPPED_MODELS, load_architecture
from clippy_cli.model.store import load_model_directory, save_model


@pytest.fixture
def saved(nano, tmp_path):
    save_model(nano, tmp_path / "model")
    return tmp_path / "model"


def test_reload_is_bit_equal_and_overwrites_whole(nano, saved):
    save_model(nano, saved)
    again = load_model_directory(str(saved), device="cpu")
    images, texts = torch.randn(2, 3, 64, 96), ["a ring on sand", "grass"]
    assert torch.equal(nano.embed_images(images), again.embed_images(images))
    assert torch.equal(nano.embed_patches(images), again.embed_patches(images))
    assert torch.equal(nano.embed_texts(texts), again.embed_texts(texts))
    assert [path.name for path in saved.parent.iterdir()] == ["model"]  # nothing half-written is left


def test_run_folder_and_half_precision(nano, saved):
    save_model(nano, saved, dtype=torch.float16)
    again = load_model_directory(str(saved.parent), device="cpu")
    assert again.embed_texts(["a ring"]).dtype == torch.float32
    torch.testing.assert_close(again.embed_texts(["a ring"]), nano.embed_texts(["a ring"]), atol=5e-3, rtol=0)


def break_config(folder):
    (folder / "config.json").write_text("{", encoding="utf-8")


def break_format(folder):
    (folder / "config.json").write_text(json.dumps({"format": 99}), encoding="utf-8")


def break_field(folder):
    fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    fields["image"]["pooling"] = "median"
    (folder / "config.json").write_text(json.dumps(fields), encoding="utf-8")


def break_weights(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def lose_weights(folder):
    (folder / "model.safetensors").unlink()


def foreign_weights(folder):
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "checksums.json").unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (break_config, "cannot be read"),
        (break_format, "format 99"),
        (break_field, "image.pooling"),
        (break_weights, "damaged"),
        (lose_weights, "lacks model.safetensors"),
        (foreign_weights, "does not fit"),
    ],
)
def test_damaged_folders_say_what_is_wrong(saved, damage, says):
    damage(saved)
    with pytest.raises(ClippyError, match=says):
        load_model_directory(str(saved), device="cpu")


def test_names_that_lead_nowhere_list_what_there_is(tmp_path):
    with pytest.raises(ClippyError, match="architecture; no weights"):
        load_model_directory("clippy-b16")
    with pytest.raises(ClippyError, match="not a model directory"):
        load_model_directory(str(tmp_path))
    with pytest.raises(ClippyError, match="no such folder"):
        load_model_directory("clipy-ti")


def test_trunk_weights_from_a_file(nano, tmp_path):
    save_file(nano.image.trunk.state_dict(), tmp_path / "trunk.safetensors")
    model = build_model(load_architecture("clippy-nano"), image_init=str(tmp_path / "trunk.safetensors"), seed=9)
    for name, value in nano.image.trunk.state_dict().items():
        assert torch.equal(model.image.trunk.state_dict()[name], value)
    assert not torch.equal(model.image.projection.weight, nano.image.projection.weight)
    state = nano.image.trunk.state_dict()
    del state["blocks.3.mlp.fc2.bias"]
    save_file(state, tmp_path / "holes.safetensors")
    with pytest.raises(ClippyError, match=r"lacks 1 tensors.*blocks\.3\.mlp\.fc2\.bias"):
        build_model(load_architecture("clippy-nano"), image_init=str(tmp_path / "holes.safetensors"))


def test_a_pickle_with_code_in_it_is_not_run(tmp_path):
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"state_dict": Boom()}, tmp_path / "bad.pt")
    with pytest.raises(ClippyError, match="more than tensors"):
        read_weights(tmp_path / "bad.pt", "model.image.init")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def later(tmp_path):
    """A copy of the shipped model, its text tower put off."""
    folder = shutil.copytree(SHIPPED_MODELS / "clippy-ti", tmp_path / "shipped")
    return folder, load_model_directory(str(folder), device="cpu", texts_later=True)


def test_a_text_tower_put_off_is_read_when_texts_or_weights_are_asked_for(later):
    folder, model = later
    whole, images, texts = (
        load_model_directory(str(folder), device="cpu"),
        torch.randn(1, 3, 48, 64),
        ["a ring", "sand"],
    )
    view = model.with_positions(PositionResampling.DINO)
    assert torch.equal(model.embed_patches(images), whole.embed_patches(images))
    assert "text" not in dict(model.named_children())  # nothing so far has needed it
    assert torch.equal(model.embed_texts(texts), whole.embed_texts(texts))
    assert view.text is model.text
    assert not model.text.training

    again = load_model_directory(str(folder), device="cpu", texts_later=True)
    wanted = whole.state_dict()
    assert again.state_dict().keys() == wanted.keys()
    again = load_model_directory(str(folder), device="cpu", texts_later=True).double()
    assert {name for name, _ in again.named_parameters()} == {name for name, _ in whole.named_parameters()}
    assert {value.dtype for value in again.parameters()} == {torch.float64}


def test_a_text_tower_put_off_is_that_of_the_same_file(later):
    folder, model = later
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    os.utime(weights, ns=(0, 0))
    with pytest.raises(ClippyError, match=r"model.safetensors has changed since the model was loaded"):
        model.embed_texts(["a ring"])


def test_a_text_tower_that_was_let_go_is_read_again(later):
    _, model = later
    before = model.embed_texts(["a ring"])
    model.let_go_of_texts()
    assert "text" not in dict(model.named_children())
    assert torch.equal(model.embed_texts(["a ring"]), before)
    whole = load_model_directory("clippy-ti", device="cpu")
    whole.let_go_of_texts()  # it cannot be read again, and stays
    assert torch.equal(whole.embed_texts(["a ring"]), before)
