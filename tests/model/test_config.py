"""What architecture files say, against the libraries they quote."""

from __future__ import annotations

import pytest
from timm.data import constants

from clippy_cli.model.registry import architecture_names, load_architecture

STATISTICS = {
    (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
}


@pytest.mark.parametrize("name", architecture_names())
def test_pixel_statistics_are_those_of_timm(name: str) -> None:
    import timm

    config = load_architecture(name)
    assert (config.preprocess.mean, config.preprocess.std) in STATISTICS
    if config.image.pretrained_tag is not None and name != "clippy-b16":  # whose authors take OpenAI CLIP's
        settings = timm.get_pretrained_cfg(config.image.pretrained_tag)
        assert (config.preprocess.mean, config.preprocess.std) == (settings.mean, settings.std)
