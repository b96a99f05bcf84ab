from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.classifier import read_classifier
from clippy_cli.model.registry import load_architecture
from clippy_cli.recipe.loading import load_recipe
from clippy_cli.training.loader import Batch
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.terms import classes
from clippy_cli.training.terms.base import Pairs, TermSetup
from clippy_cli.training.terms.classes import class_loss


@pytest.fixture
def model():
    config = load_architecture("clippy-nano")
    image = config.image.model_copy(update={"blocks": (2, 4)})
    return build_model(config.model_copy(update={"image": image}), seed=0).eval()


@pytest.fixture
def weights(model, tmp_path: Path) -> Path:
    """Weights of the nano trunk with a classifier of 1000 classes, as timm writes them."""
    width = model.image.trunk.embed_dim
    path = tmp_path / "supervised.safetensors"
    head = {"head.weight": torch.randn(1000, width), "head.bias": torch.randn(1000)}
    save_file({**{name: value.clone() for name, value in model.image.trunk.state_dict().items()}, **head}, path)
    return path


def test_the_loss_is_least_where_scores_are_the_classifiers_answers():
    texts = torch.eye(6)
    images, scale = F.normalize(torch.randn(4, 6), dim=-1), torch.tensor(5.0)
    logits = 5.0 * images
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
    torch.testing.assert_close(class_loss(images, logits, texts, scale), entropy)
    assert class_loss(images, logits.roll(1, dims=0), texts, scale) > entropy


@pytest.mark.parametrize("freeze", ["trunk", "none"])
@pytest.mark.parametrize("stored", [True, False])
def test_the_classifier_reads_the_class_token_of_the_weights_that_it_came_with(model, weights, stored, freeze):
    recipe = load_recipe(
        "flickr8k",
        {
            "model.architecture": "clippy-nano",
            "model.image.init": str(weights),
            "model.image.freeze": freeze,
            "model.text.init": "random",
            "data.source": {"kind": "scenes", "count": 4},
            "data.cache_features": False,
            "train.precision": "fp32",
            "train.classes.weight": 2,
        },
    )
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    pixels = model.preprocess.normalize(images)
    batch = (
        Batch([0, 1, 2], [], features=model.image.features(pixels).half()) if stored else Batch([0, 1, 2], [], images)
    )
    state = read_classifier(model.image, str(weights))
    expected_logits = F.linear(model.image.trunk.forward_features(pixels)[:, 0], state.weight, state.bias)
    if freeze == "none":
        with torch.no_grad():  # as in a run that resumes: the trunk has learned since
            model.image.trunk.cls_token += 1.0
    term = classes.build(TermSetup(model, recipe, None, 1))
    embedded, captions = F.normalize(torch.randn(3, 96), dim=-1), F.normalize(torch.randn(3, 96), dim=-1)
    scale = torch.tensor(20.0)
    expected = 2 * class_loss(embedded, expected_logits, term.texts, scale)
    for chunk_size in (None, 2):
        pairs = Pairs(embedded, captions, scale, torch.tensor(0.0), 0, StepShape(64, 0.5, chunk_size))
        torch.testing.assert_close(term.loss(batch, pairs), {"classes": expected}, rtol=1e-3, atol=1e-3)


def test_weights_without_a_classifier_are_refused_by_what_they_hold(model, weights, tmp_path: Path):
    with pytest.raises(ClippyError, match="init is random"):
        read_classifier(model.image, "random")
    bare = tmp_path / "bare.safetensors"
    save_file({"head.weight": torch.ones(10, 96), "head.bias": torch.ones(10)}, bare)
    with pytest.raises(ClippyError, match=r"shape \(10, 96\)"):
        read_classifier(model.image, str(bare))
    image = model.config.image.model_copy(update={"blocks": (2,)})
    inner = build_model(model.config.model_copy(update={"image": image}))
    with pytest.raises(ClippyError, match="last block"):
        read_classifier(inner.image, str(weights))


def test_pretrained_weights_without_a_classifier_do_not_get_a_random_one(model, monkeypatch: pytest.MonkeyPatch):
    image = model.config.image.model_copy(update={"blocks": (2, 4), "pretrained_tag": "vit_small_patch16_224.dino"})
    self_supervised = build_model(model.config.model_copy(update={"image": image}))
    monkeypatch.setattr("clippy_cli.model.build.pretrained_model", timm.create_model)  # whose weights are random here
    with pytest.raises(ClippyError, match="it holds none"):
        read_classifier(self_supervised.image, "pretrained")
