"""DINO and iBOT beside the contrastive loss, on the tiny model."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.vit_tower import VitTower
from clippy_cli.recipe.terms import SelfDistillationRecipe
from clippy_cli.training.checkpoint import latest_checkpoint, load_checkpoint
from clippy_cli.training.events import StepReport
from clippy_cli.training.loader import Batch
from clippy_cli.training.run import model_config, train
from clippy_cli.training.step_shapes import StepShape
from clippy_cli.training.terms.base import Pairs
from clippy_cli.training.terms.self_distillation import SelfDistillation
from tests.training.test_run import assert_same_weights, losses, run, weights

SMALL = {"prototypes": 12, "hidden_dim": 24, "bottleneck_dim": 8}
SWITCHED_ON = "train.self_distillation={weight: 1, prototypes: 12, hidden_dim: 24, bottleneck_dim: 8, momentum: 0.9}"
NAME = "self_distillation"
B, N = 4, 16


@pytest.fixture
def model(tiny):
    return build_model(model_config(tiny()), seed=3)


def term_of(model, total_steps: int = 10, **fields) -> SelfDistillation:
    recipe = SelfDistillationRecipe(weight=1.0, **SMALL, **fields)
    return SelfDistillation(model, recipe, batch_size=B, total_steps=total_steps, seed=5)


def noise_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    views = torch.randint(0, 256, (B, 2, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return Batch(list(range(B)), [("",)] * B, views=views)


def pairs(step: int = 0, chunk_size: int | None = None) -> Pairs:
    nothing = torch.zeros(())
    return Pairs(nothing, nothing, nothing, nothing, step, StepShape(32, 0.5, chunk_size))


def test_both_losses_are_those_written_out_crop_by_crop_and_patch_by_patch(model) -> None:
    term, batch = term_of(model), noise_batch()
    with torch.no_grad():  # the teacher is another model by now, and has centers
        for parameter in (*term.teacher.parameters(), *term.teacher_head.parameters()):
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        term.class_center += torch.linspace(-0.1, 0.1, 12)
        term.patch_center += torch.linspace(0.2, -0.2, 12)
    masks = term.draw_masks(7, N)  # (B,2,N)
    found = term.loss(batch, pairs(7))

    def answers(tower, head, crop, masked=None):
        """(1+N,K) cosines of one crop, by timm's own layers."""
        trunk = tower.trunk
        patches = trunk.patch_embed(model.preprocess.normalize(crop[None])).flatten(1, 2)  # (1,N,F)
        if masked is not None:
            patches = torch.where(masked[None, :, None], term.mask_token, patches)
        tokens = trunk._pos_embed(patches.view(1, 4, 4, -1))
        for block in trunk.blocks:
            tokens = block(tokens)
        return head(trunk.norm(tokens))[0]

    def cross_entropy(taught, center, said) -> float:
        target = ((taught - center) / 0.04).softmax(dim=0)
        return float(-(target * (said / 0.1).log_softmax(dim=0)).sum())

    dino = ibot = 0.0
    with torch.no_grad():
        for image in range(B):
            for crop in (0, 1):
                masked = masks[image, crop]
                said = answers(model.image, term.head, batch.views[image, crop], masked)
                taught = answers(term.teacher, term.teacher_head, batch.views[image, crop])
                other = answers(term.teacher, term.teacher_head, batch.views[image, 1 - crop])
                dino += cross_entropy(other[0], term.class_center, said[0]) / (2 * B)
                each = [
                    cross_entropy(taught[1 + patch], term.patch_center, said[1 + patch])
                    for patch in masked.nonzero().flatten().tolist()
                ]
                ibot += sum(each) / len(each) / (2 * B)
    assert float(found["dino"].detach()) == pytest.approx(dino, rel=1e-5)
    assert float(found["ibot"].detach()) == pytest.approx(ibot, rel=1e-5)


def test_each_crop_masks_its_share_of_patches_and_the_patch_center_is_theirs_alone(model) -> None:
    term = term_of(model, mask_share=(0.25, 0.5))
    masks = term.draw_masks(3, N)
    counts = masks.sum(dim=-1)
    assert masks.shape == (B, 2, N) and counts.min() >= 4 and counts.max() <= 8 and len(counts.unique()) > 1
    assert torch.equal(masks, term.draw_masks(3, N)) and not torch.equal(masks, term.draw_masks(4, N))
    assert term_of(model, mask_share=(0.0, 0.0)).draw_masks(3, N).sum(dim=-1).eq(1).all()
    shifted = torch.zeros(12)
    shifted[0] = -5.0  # the teacher now says 0 of every masked patch
    before = term.loss(noise_batch(), pairs())
    term.patch_center += shifted
    after = term.loss(noise_batch(), pairs())
    assert torch.equal(before["dino"], after["dino"]) and not torch.allclose(before["ibot"], after["ibot"])


def test_the_gradient_reaches_student_head_and_mask_token_and_no_part_of_the_teacher(model) -> None:
    term = term_of(model)
    torch.stack(list(term.loss(noise_batch(), pairs()).values())).sum().backward()
    for parameter in (*term.parameters(), *model.image.trunk.parameters()):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0
    assert model.image.projection.weight.grad is None
    assert all(p.grad is None for p in (*term.teacher.parameters(), *term.teacher_head.parameters()))


def test_chunks_have_the_losses_gradients_and_centers_of_the_whole_batch(model) -> None:
    found = []
    for chunk_size in (None, 1, 3):
        model.zero_grad()
        term = term_of(model)
        values = term.loss(noise_batch(), pairs(chunk_size=chunk_size))
        torch.stack(list(values.values())).sum().backward()
        term.after_update(0)
        gradients = [p.grad.clone() for p in (*model.image.trunk.parameters(), *term.parameters())]
        found.append([*values.values(), term.class_center, term.patch_center, *gradients])
    for chunked in found[1:]:
        for mine, whole in zip(chunked, found[0], strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-4, atol=1e-6)


def test_teacher_and_centers_are_running_means(model) -> None:
    term, steps = term_of(model, total_steps=6, momentum=0.8, center_momentum=0.7), 6
    teacher = [p.clone() for p in (*term.teacher.trunk.parameters(), *term.teacher_head.parameters())]
    student = [*model.image.trunk.parameters(), *term.head.parameters()]
    center = torch.zeros(12)
    for step in range(steps):
        term.loss(noise_batch(step), pairs(step))
        with torch.no_grad():
            views = model.preprocess.normalize(noise_batch(step).views.flatten(0, 1))
            cosines = term.teacher_head(term.teacher.features(views)[:, 0])  # by the teacher before it follows
            for parameter in student:
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
        term.after_update(step)
        momentum = 1 - 0.2 * (1 + math.cos(math.pi * step / steps)) / 2
        teacher = [momentum * old + (1 - momentum) * new for old, new in zip(teacher, student, strict=True)]
        center = 0.7 * center + 0.3 * cosines.mean(dim=0)
    followed = [*term.teacher.trunk.parameters(), *term.teacher_head.parameters()]
    for found, expected in zip(followed, teacher, strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(term.class_center, center)


def test_a_student_learns_what_its_teacher_says(model) -> None:
    term = term_of(model, total_steps=60, momentum=0.9999, center_momentum=0.0)
    optimizer = torch.optim.Adam([*model.image.trunk.parameters(), *term.parameters()], lr=2e-3)
    curves: dict[str, list[float]] = {"dino": [], "ibot": []}
    for step in range(60):
        values = term.loss(noise_batch(), pairs(step))
        optimizer.zero_grad()
        torch.stack(list(values.values())).sum().backward()
        optimizer.step()
        term.after_update(step)
        for name, value in values.items():
            curves[name].append(float(value.detach()))
    for name, curve in curves.items():  # the first step is without a center
        assert np.mean(curve[-5:]) < 0.8 * np.mean(curve[1:6]), (name, curve)


def test_its_parts_are_reported_and_the_model_that_is_written_holds_none_of_it(tiny) -> None:
    result, events = run(tiny("train.epochs=1", SWITCHED_ON))
    for report in (event for event in events if isinstance(event, StepReport)):
        assert set(report.terms) == {"contrastive", "dino", "ibot"}
        assert report.loss == pytest.approx(sum(report.terms.values()))
    assert weights(result.folder.root).keys() == dict(result.model.state_dict()).keys()
    names = {name.split(".")[0] for name in load_checkpoint(latest_checkpoint(result.folder.checkpoints)).terms[NAME]}
    assert names == {"head", "teacher_head", "teacher", "mask_token", "class_center", "patch_center"}


@pytest.mark.slow
@pytest.mark.parametrize("chunks", ["", "train.chunk_size=4"])
def test_a_resumed_run_ends_bit_equal(tiny, tmp_path, chunks: str) -> None:
    options = [SWITCHED_ON, *([chunks, "data.workers=1"] if chunks else [])]
    run(tiny(*options, f"output={tmp_path / 'whole'}"))
    asked = iter([False] * 4 + [True])
    part, _ = run(tiny(*options), should_stop=lambda: next(asked))
    assert 0 < part.step < part.total_steps
    run(tiny(*options), resume=True)
    assert_same_weights(weights(tmp_path / "run"), weights(tmp_path / "whole"))


def test_the_training_images_stay_as_they_are_without_views(tiny, tmp_path) -> None:
    """A weight so small that it vanishes in rounding: the contrastive curve is that of a run without the term."""
    _, plain = run(tiny())
    tiny_weight = SWITCHED_ON.replace("weight: 1", "weight: 1.0e-30")
    _, beside = run(tiny(tiny_weight, "train.grad_clip=null", f"output={tmp_path / 'beside'}"))
    _, unclipped = run(tiny("train.grad_clip=null", f"output={tmp_path / 'unclipped'}"))
    assert losses(beside) == losses(unclipped) and len(losses(plain)) == len(losses(beside))


def test_what_does_not_fit_is_refused_at_the_start(tiny) -> None:
    with pytest.raises(ClippyError, match=r"self-distillation trains the trunk"):
        tiny(SWITCHED_ON, "model.image.freeze=trunk")
    convolutional = ["model.architecture=align-nano", "train.drop_rate=0", "data.resolution=64"]
    with pytest.raises(ClippyError, match="needs a vision transformer with a class token"):
        train(tiny(*convolutional, SWITCHED_ON), device="cpu")
    with pytest.raises(ClippyError, match="does not split into patches of 8"):
        train(tiny(SWITCHED_ON.replace("weight: 1", "weight: 1, resolution: 30")), device="cpu")
    with pytest.raises(ClippyError, match="the smaller share first"):
        tiny("train.self_distillation={weight: 1, mask_share: [0.5, 0.1]}")


def test_a_masked_tower_with_nothing_masked_is_the_tower(model) -> None:
    assert isinstance(model.image, VitTower)
    images, nothing = torch.randn(2, 3, 32, 48), torch.zeros(2, 24, dtype=torch.bool)
    token = torch.randn(32)
    assert torch.equal(model.image.masked_features(images, nothing, token), model.image.features(images))
    masked = nothing.clone()
    masked[0, 5] = True
    other = images.clone()
    other[0, :, 0:8, 40:48] += 1.0  # patch 5 of a grid of six columns
    same, differs = (model.image.masked_features(pixels, masked, token) for pixels in (images, other))
    assert torch.equal(same, differs)
    assert not torch.equal(copy.deepcopy(model.image).features(other), model.image.features(images))
