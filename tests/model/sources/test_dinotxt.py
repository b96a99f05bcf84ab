"""dino.txt from files in the public code's layout, against its forward pass written plainly."""

import open_clip
import pytest
import torch
import torch.nn.functional as F

from clippy_cli.data.prompts import patch_prompt_embeddings, prompt_embeddings
from clippy_cli.errors import ClippyError
from clippy_cli.model.base import embed_patch_texts
from clippy_cli.model.sources.dinotxt import RELEASES, wanted_files
from clippy_cli.model.sources.loading import check_source, list_models, load_model
from tests.fixtures.dinotxt_files import (
    WIDTH,
    dinov3,
    plain_head,
    plain_texts,
    plain_trunk,
    tensors,
    write_dinotxt,
)

TEXTS = ["a photo of a dog", "red grass"]


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    return load_model(write_dinotxt(tmp_path_factory.mktemp("dinotxt")), device="cpu")


def write(folder, **parts):
    folder.mkdir(exist_ok=True)
    for name, state in parts.items():
        torch.save(state, folder / f"{name}.pth")
    return f"dinotxt:{folder}"


def assert_image_side(model, images, tokens):
    """``tokens`` (B,5+N,F) after the vision head, by which everything on the image side is fixed."""
    pooled = F.normalize(torch.cat([tokens[:, 0], tokens[:, 5:].mean(dim=1)], dim=1), dim=1)
    torch.testing.assert_close(model.embed_images(images), pooled, atol=1e-5, rtol=1e-4)
    patches = F.normalize(tokens[:, 5:], dim=-1)
    torch.testing.assert_close(model.embed_patches(images).flatten(1, 2), patches, atol=1e-5, rtol=1e-4)
    texts = model.embed_texts(TEXTS)
    torch.testing.assert_close(model.score_images(images, texts), pooled @ texts.T, atol=1e-5, rtol=1e-4)


def test_dinov2_equals_the_plain_forward_pass(dinov2):
    state = tensors()
    for h, w in ((4, 4), (3, 6)):
        images = torch.randn(2, 3, 14 * h, 14 * w)
        assert_image_side(dinov2, images, plain_head(plain_trunk(images, state["trunk"]), state["head"]))
    ids = open_clip.tokenize(TEXTS)
    vectors = plain_texts(ids, state["text"])
    torch.testing.assert_close(dinov2.embed_texts(TEXTS), F.normalize(vectors, dim=1), atol=1e-5, rtol=1e-4)
    halves = F.normalize(vectors[:, WIDTH:], dim=1)
    torch.testing.assert_close(embed_patch_texts(dinov2, TEXTS), halves, atol=1e-5, rtol=1e-4)
    assert dinov2.name == "dinotxt-dinov2-vit128-14" and dinov2.defaults.logit_scale == pytest.approx(100)


def test_prompts_for_patches_normalize_the_second_half_before_the_mean(dinov2):
    """As the notebook does; the second half of the images' prompts is another vector."""
    templates = ("a photo of {}", "two {} on grass, far away in the rain")
    expected = [F.normalize(embed_patch_texts(dinov2, [t.format("dogs") for t in templates]).mean(dim=0), dim=0)]
    patches = patch_prompt_embeddings(dinov2, ["dogs"], templates)
    torch.testing.assert_close(patches, torch.stack(expected))
    whole = prompt_embeddings(dinov2, ["dogs"], templates)
    assert whole.shape == (1, 2 * WIDTH)
    assert not torch.allclose(F.normalize(whole[:, WIDTH:], dim=1), patches, atol=1e-4)


def test_dinov3_in_two_files_by_either_name_and_in_one(tmp_path):
    both, trunk_state, trunk = dinov3()
    images = torch.randn(2, 3, 48, 80)
    with torch.no_grad():
        tokens = plain_head(trunk.forward_features(images), tensors()["head"])
    whole = both | {f"visual_model.backbone.{name}": value for name, value in trunk_state.items()}
    for source in (
        write(tmp_path / "two", both=both, trunk=trunk_state),
        write(tmp_path / "timm", both=both, trunk=trunk.state_dict()),  # as timm names them
        write(tmp_path / "one", whole=whole),
    ):
        model = load_model(source, device="cpu")
        assert_image_side(model, images, tokens)
        assert model.defaults.logit_scale == pytest.approx(30) and model.preprocess.patch_size == 16
    changed = load_model(source, device="cpu", dense="sclip").embed_patches(images)
    assert changed.shape == model.embed_patches(images).shape and not torch.allclose(
        changed, model.embed_patches(images)
    )
    with pytest.raises(ClippyError, match="Token sub-sampling"):
        model.image_tokens(images, torch.zeros(2, 1, dtype=torch.int64))


def test_dense_modes_change_the_last_block_of_a_dinov2_trunk(dinov2, source_of):
    images = torch.randn(1, 3, 56, 56)
    other = load_model(source_of("dinotxt"), device="cpu", dense="naclip")
    assert torch.equal(other.embed_images(images), dinov2.embed_images(images))
    assert not torch.allclose(other.embed_patches(images), dinov2.embed_patches(images), atol=1e-3)


def test_what_is_unknown_missing_or_misshapen_is_named_at_once(tmp_path):
    parts = tensors()
    del parts["head"]["block_list.1.mlp.w3.bias"]
    parts["text"]["head.blocks.0.extra"] = torch.zeros(1)
    parts["trunk"]["blocks.0.ls1.gamma"] = torch.ones(7)
    with pytest.raises(ClippyError) as caught:
        load_model(write(tmp_path, **parts), device="cpu")
    for said in (
        "1 unknown: text encoder: head.blocks.0.extra",
        "1 missing: vision head: blocks.1.mlp.w3.bias",
        "1 of another shape: trunk: blocks.0.ls1.gamma (7,), wanted (128,)",
    ):
        assert said in caught.value.message


def test_files_that_do_not_go_together(tmp_path):
    parts = tensors()
    for name, given, says in (
        ("no_text", {"head": parts["head"]}, "hold no text encoder"),
        ("twice", {"a": parts["head"], "b": parts["head"], "text": parts["text"]}, "both hold the head"),
        ("other", {"a": {"conv1.weight": torch.zeros(1)}}, "no part of a dino.txt: conv1.weight"),
        ("short", {"head": parts["head"], "text": {"backbone.token_embedding.weight": torch.ones(3, 64)}}, "lacks"),
        ("no_trunk", {"head": parts["head"], "text": parts["text"]}, "is 128 wide"),
    ):
        with pytest.raises(ClippyError, match=says):
            load_model(write(tmp_path / name, **given), device="cpu")
    large = {"ln_final.weight": torch.ones(1024), "ln_final.bias": torch.ones(1024)}
    with pytest.raises(ClippyError, match=r"vit_large_patch16_dinov3\.lvd1689m cannot be had"):
        load_model(write(tmp_path / "hub", head=large, text=parts["text"]), device="cpu")


def test_releases_are_looked_for_in_the_cache_of_torch_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ClippyError, match=r"_vision_head\.pth and .*_text_encoder\.pth in") as caught:
        check_source("dinotxt:dinov2-l")
    assert RELEASES["dinov2-l"].where in str(caught.value.hint)
    with pytest.raises(ClippyError, match="no release is called so; there are dinov2-l, dinov3-l"):
        check_source("dinotxt:dinov4")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ClippyError, match="holds no weight file"):
        check_source(f"dinotxt:{empty}")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    release = RELEASES["dinov3-l"]
    for name in (*release.files, release.trunk):
        (folder / name).touch()
    assert [path.name for path in wanted_files("dinov3-l")] == [*release.files, release.trunk]
    at_hand = {model.source: model.at_hand for model in list_models().models if model.kind == "dinotxt"}
    assert at_hand == {"dinotxt:dinov2-l": False, "dinotxt:dinov3-l": True, "dinotxt:FILE,FILE": False}
