import pytest
import timm
import torch
from safetensors.torch import save_file

from clippy_cli.errors import ClippyError
from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import build_image_tower
from clippy_cli.model.registry import load_architecture
from clippy_cli.model.store import load_model_directory, save_model


def align(**image):
    config = load_architecture("align-nano")
    return build_model(config.model_copy(update={"image": config.image.model_copy(update=image)}), seed=3)


@pytest.fixture
def used():
    """A model whose batch-norm statistics have left their initial values."""
    model = align().train()
    model.image.features(torch.randn(4, 3, 96, 96))
    return model.eval()


def test_cells_of_the_last_map_are_the_patches_and_their_mean_is_the_image(used):
    images = torch.randn(2, 3, 64, 96)
    cells = used.image.trunk.forward_features(images)
    projected = torch.einsum("bfhw,df->bhwd", cells, used.image.projection.weight)
    patches = used.embed_patches(images)
    assert patches.shape == (2, 2, 3, 96)
    torch.testing.assert_close(patches, torch.nn.functional.normalize(projected, dim=-1))
    average_first = cells.mean(dim=(2, 3)) @ used.image.projection.weight.T
    torch.testing.assert_close(used.embed_images(images), torch.nn.functional.normalize(average_first, dim=-1))


def test_save_and_load_keep_the_statistics(used, tmp_path):
    save_model(used, tmp_path / "model")
    again = load_model_directory(str(tmp_path / "model"), device="cpu")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in used.state_dict().items())
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(again.embed_patches(images), used.embed_patches(images))


def test_trunk_weights_come_from_timms_file_statistics_included(used, tmp_path):
    donor = timm.create_model("test_efficientnet", num_classes=10)
    donor.train()(torch.randn(4, 3, 64, 64))
    save_file(donor.state_dict(), tmp_path / "trunk.safetensors")
    config = load_architecture("align-nano")
    trunk = build_model(config, image_init=str(tmp_path / "trunk.safetensors")).image.trunk
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, donor.state_dict()[name]), name
    for change, says in (
        ({"bn1.running_mean": None}, "lacks 1 tensors"),
        ({"extra": torch.ones(1)}, "holds 1 tensors"),
    ):
        state = {name: value for name, value in {**donor.state_dict(), **change}.items() if value is not None}
        save_file(state, tmp_path / "other.safetensors")
        with pytest.raises(ClippyError, match=says):
            build_model(config, image_init=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        ({"pooling": "cls"}, "no class token"),
        ({"pooling": "cls+avg"}, "no class token"),
        ({"head_blocks": 1}, "is convolutional"),
        ({"blocks": (2,)}, "no transformer blocks"),
        ({"trunk": "efficientnet_b99"}, "cannot build the trunk 'efficientnet_b99'"),
        ({"trunk": "swin_tiny_patch4_window7_224"}, "no plain vision transformer"),
    ],
)
def test_what_a_convolutional_trunk_cannot_do_is_refused(image, says):
    with pytest.raises(ClippyError, match=says):
        align(**image)


def test_b5_fits_its_architecture():
    config = load_architecture("align-b5")
    with torch.device("meta"):
        tower = build_image_tower(config.image, config.embed_dim)
        assert tower.project(tower.features(torch.zeros(2, 3, 224, 320))).shape == (2, 7 * 10, 768)


def test_tokens_cannot_be_dropped_and_sides_are_multiples_of_the_stride(used):
    assert not used.image.can_drop_tokens and used.image.has_batch_norm
    assert not align(trunk="test_efficientnet_ln").image.has_batch_norm
    with pytest.raises(ClippyError, match="needs a vision transformer"):
        used.image_tokens(torch.zeros(1, 3, 64, 64), torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(ClippyError, match="patches of 32"):
        used.embed_images(torch.zeros(1, 3, 64, 80))
