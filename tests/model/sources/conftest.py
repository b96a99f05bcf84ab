"""The tiny foreign models, written once for all tests of this room."""

import pytest

from tests.fixtures import dinotxt_files, foreign_models

WRITERS = {
    **dict.fromkeys(foreign_models.OPEN_CLIP, foreign_models.write_open_clip),
    **dict.fromkeys(foreign_models.TRANSFORMERS, foreign_models.write_transformers),
    "test_vit": foreign_models.write_timm,
    "dinotxt": dinotxt_files.write_dinotxt,
    "talk2dino": foreign_models.write_talk2dino,
    "clip-dinoiser": foreign_models.write_clip_dinoiser,
}


@pytest.fixture(scope="session")
def source_of(tmp_path_factory):
    """What ``--model`` calls a tiny model, by its short name."""
    folder = tmp_path_factory.mktemp("models")
    written = {}

    def find(name):
        if name not in written:
            written[name] = WRITERS[name](folder, name)
        return written[name]

    with pytest.MonkeyPatch.context() as patch:
        foreign_models.register_open_clip(folder / "configs", patch)
        yield find


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever is asked of a hub fails at once, as on a machine without a network, and no cache is found."""
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
