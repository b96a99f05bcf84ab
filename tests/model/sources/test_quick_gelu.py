"""A warning where weights may have been trained with another activation than their architecture's name says."""

import json

import open_clip
import pytest
import torch

from clippy_cli.model.compat import open_clip as compat
from clippy_cli.model.sources.loading import load_model
from tests.fixtures.foreign_models import OPEN_CLIP


@pytest.fixture
def twins(tmp_path, monkeypatch):
    """An architecture with a twin that computes QuickGELU, of which one tag each is listed; and a weight file."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    for name, more in (("twin", {}), ("twin-quickgelu", {"quick_gelu": True})):
        (tmp_path / f"{name}.json").write_text(json.dumps(OPEN_CLIP["tiny-vit"] | more), encoding="utf-8")
    open_clip.add_model_config(tmp_path)
    tags: dict[str, dict[str, dict]] = {
        "twin": {"laion_s1b": {}, "openai": {"quick_gelu": True}},
        "twin-quickgelu": {"meta_400m": {}},
    }
    monkeypatch.setattr(compat, "pretrained_tags", lambda name: list(tags[name]))
    monkeypatch.setattr(compat, "pretrained_entry", lambda name, tag: tags[name].get(tag, {}))
    return open_clip.create_model("twin").state_dict()


@pytest.mark.parametrize(
    ("architecture", "file", "more", "says"),
    [
        ("twin", "w.pt", {}, "does not say whether"),
        ("twin", "w.pt", {"input_resolution": torch.tensor(32)}, "seems to be trained with QuickGELU"),
        ("twin", "openai.pt", {}, "seems to be trained with QuickGELU"),
        ("twin", "META-400M.pt", {}, "seems to be trained with QuickGELU"),
        ("twin", "laion-s1b.pt", {}, None),
        ("twin-quickgelu", "w.pt", {}, None),
    ],
)
def test_one_warning_where_the_file_may_be_of_the_twin(twins, tmp_path, caplog, architecture, file, more, says):
    torch.save(twins | more, tmp_path / file)
    try:
        load_model(f"open_clip:{architecture}/{tmp_path / file}", device="cpu")
    except Exception:
        assert more  # open_clip refuses the additional numbers, after the warning
    warnings = [record.getMessage() for record in caplog.records if "QuickGELU" in record.getMessage()]
    assert len(warnings) == (says is not None)
    assert says is None or (says in warnings[0] and "open_clip:twin-quickgelu/" in warnings[0])
