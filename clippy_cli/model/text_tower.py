"""The text tower: open_clip's transformer and tokenizer, or a Hugging Face encoder behind open_clip's adapter."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from open_clip.hf_configs import arch_dict
from open_clip.hf_model import HFTextEncoder
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from transformers import AutoModelForTextEncoding

from clippy_cli.errors import ClippyError
from clippy_cli.model.config import TextTowerConfig
from clippy_cli.model.hub import hub_session
from clippy_cli.model.tokenize import Tokenize

# open_clip's table has no entry for T5; multilingual T5 has the same attribute names.
arch_dict.setdefault("t5", arch_dict["mt5"])
T5_TYPES = ("t5", "mt5")
_GIVE_FILES = "Give a local folder that holds tokenizer.json: --set model.text.tokenizer=FOLDER"


class TextTower(nn.Module):
    """Tokens -> encoder -> pooled features -> projection into the joint space.

    Args:
        config: which encoder, from ``architectures/*.yaml`` or a model directory.
        embed_dim: width D of the joint space.
        tokenizer_files: folder or Hugging Face name for ``kind: hugging_face``; with None the tower takes token ids
            and refuses texts. open_clip's own vocabulary needs none.
    """

    def __init__(self, config: TextTowerConfig, embed_dim: int, tokenizer_files: str | None) -> None:
        super().__init__()
        self.config = config
        if config.kind == "open_clip":
            self.tokenizer: Any = SimpleTokenizer(context_length=config.context_length)
            self.encoder = TextTransformer(context_length=config.context_length, output_dim=0, **config.encoder)
            self.feature_dim: int = self.encoder.width
            self.pad_id: int | None = None
        else:
            self.tokenizer = None if tokenizer_files is None else _hugging_face_tokenizer(tokenizer_files, config)
            self.encoder = hugging_face_encoder(config)
            width = arch_dict[self.encoder.config.model_type]["config_names"]["width"]
            self.feature_dim = int(getattr(self.encoder.config, width))
            self.pad_id = int(self.encoder.config.pad_token_id)
        if config.projection == "linear":
            self.projection: nn.Module = nn.Linear(self.feature_dim, embed_dim, bias=False)
        elif self.feature_dim == embed_dim:
            self.projection = nn.Identity()
        else:
            raise ClippyError(
                f"text.projection is none, but the encoder gives {self.feature_dim} features, embed_dim {embed_dim}.",
                "Set text.projection: linear, or make the widths equal.",
            )

    @property
    def tokenize(self) -> Tokenize:
        """K strings -> (K,L) int64 token ids on the CPU, by an object without the weights that workers can be sent."""
        return Tokenize(self._given_tokenizer(), self.config.context_length, self.pad_id)

    def features(self, token_ids: Tensor) -> Tensor:
        """(K,L) token ids -> (K,F) pooled encoder output, before the projection."""
        pooled: Tensor = self.encoder(token_ids)
        return pooled

    def project(self, features: Tensor) -> Tensor:
        """(K,F) -> (K,D), not normalised."""
        projected: Tensor = self.projection(features)
        return projected

    def save_tokenizer(self, folder: Path) -> None:
        """Write what :class:`TextTower` needs as ``tokenizer_files``; nothing for open_clip's own vocabulary."""
        if self.config.kind == "hugging_face":
            self._given_tokenizer().save_pretrained(str(folder))

    def _given_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ClippyError(
                f"The text tower needs tokenizer files of {self.config.pretrained_tag}, and none were given.",
                _GIVE_FILES,
            )
        return self.tokenizer


def hugging_face_encoder(config: TextTowerConfig) -> HFTextEncoder:
    """open_clip's adapter with random weights, mean pooling and no projection of its own; needs no network."""
    fields = dict(config.encoder)
    if fields.get("model_type") in T5_TYPES:  # the adapter builds both halves of T5 and keeps the encoder
        fields |= {"is_encoder_decoder": True, "num_decoder_layers": 1}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(fields), encoding="utf-8")
        return HFTextEncoder(folder, _width(config), pooler_type="mean_pooler", pretrained=False)


def hugging_face_weights(source: str) -> dict[str, Tensor]:
    """Encoder weights of a folder or Hugging Face name, keyed as in :func:`hugging_face_encoder`."""
    with hub_session():
        donor = AutoModelForTextEncoding.from_pretrained(source)
    stack = donor.encoder if donor.config.model_type in T5_TYPES else donor
    return {
        f"transformer.{name}": value for name, value in stack.state_dict().items() if not name.startswith("pooler.")
    }


def _width(config: TextTowerConfig) -> int:
    model_type = config.encoder.get("model_type")
    if model_type not in arch_dict:
        raise ClippyError(
            f"text.encoder.model_type is {model_type!r}; open_clip's text adapter knows {', '.join(sorted(arch_dict))}."
        )
    return int(config.encoder[arch_dict[model_type]["config_names"]["width"]])


def _hugging_face_tokenizer(files: str, config: TextTowerConfig) -> HFTokenizer:
    try:
        with hub_session():
            tokenizer = HFTokenizer(files, context_length=config.context_length)
    except (OSError, ValueError) as error:
        raise ClippyError(
            f"No tokenizer could be loaded from {files!r}: {str(error).splitlines()[0]}", _GIVE_FILES
        ) from error
    words = set(tokenizer.tokenizer.get_vocab()) - set(tokenizer.tokenizer.all_special_tokens)
    if not words:  # transformers makes one without a vocabulary where its files are missing
        raise ClippyError(f"The tokenizer files of {files!r} hold no vocabulary.", _GIVE_FILES)
    return tokenizer
