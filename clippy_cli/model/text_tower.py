"""The text tower: strings to token ids, an encoder of transformers or open_clip, a projection into the joint space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clippy_cli.errors import ClippyError, first_line
from clippy_cli.model import bert
from clippy_cli.model.config import TextTowerConfig
from clippy_cli.model.weight_files import MAX_SMALL_FILE
from clippy_cli.model.wordpiece import WordPiece
from clippy_cli.regular_files import is_folder

_PANIC = "PanicException"  # of libraries in Rust, which is no Exception
_DESCRIPTIONS = (".json", ".txt", ".model")
_GIVE_FILES = "Give a local folder that holds tokenizer.json: --set model.text.tokenizer=FOLDER"


@dataclass(frozen=True)
class Tokenize:
    """A text tower's tokenizer with its settings: small, picklable, without weights.

    Attributes:
        tokenizer: open_clip's SimpleTokenizer, or one of transformers behind the same signature.
        context_length: tokens a text is cut to.
        pad_id: the id that the encoder masks; None where it reads padding like any other token.
    """

    tokenizer: Callable[..., Tensor]
    context_length: int
    pad_id: int | None

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,L) int64 ids on the CPU; L is the longest text where padding is masked, else the context."""
        ids = self.tokenizer(list(texts), context_length=self.context_length)
        if self.pad_id is None:
            return ids
        return ids[:, : int((ids != self.pad_id).sum(dim=1).max())]


class TextTower(nn.Module):
    """Tokens -> encoder -> pooled features -> projection into the joint space.

    Args:
        config: which encoder, from ``architectures/*.yaml`` or a model directory.
        embed_dim: width D of the joint space.
        tokenizer_files: folder or Hugging Face name for ``kind: hugging_face``; with None the tower takes token ids
            and refuses texts. open_clip's own vocabulary needs none.
        bare: see :func:`~clippy_cli.model.assembly.assemble`.
    """

    def __init__(
        self, config: TextTowerConfig, embed_dim: int, tokenizer_files: str | None, *, bare: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer: Any = None
        self.pad_id: int | None = None
        if config.kind == "open_clip":
            import open_clip

            from clippy_cli.model.compat.open_clip import TextTransformer

            self.tokenizer = open_clip.SimpleTokenizer(context_length=config.context_length)
            self._require_vocabulary()
            self.encoder: Any = TextTransformer(context_length=config.context_length, output_dim=0, **config.encoder)
        else:
            if tokenizer_files is not None:
                self.tokenizer = _hugging_face_tokenizer(tokenizer_files, config.context_length)
            self.encoder = _hugging_face_encoder(config.encoder, bare=bare)
            self.pad_id = self.encoder.pad_id
            self._require_fit(tokenizer_files)
        self.feature_dim: int = self.encoder.width
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
        """(K,F) -> (K,D), not normalized."""
        projected: Tensor = self.projection(features)
        return projected

    def save_tokenizer(self, folder: Path) -> None:
        """Write what :class:`TextTower` needs as ``tokenizer_files``; nothing for open_clip's own vocabulary."""
        if self.config.kind == "hugging_face":
            self._given_tokenizer().save_pretrained(str(folder))

    def _require_vocabulary(self) -> None:
        """ClippyError where an encoder of open_clip has no layer or head, or fewer rows than the tokenizer has ids."""
        least = {"vocab_size": self.tokenizer.vocab_size, "layers": 1, "heads": 1, "width": 1}
        for name, lowest in least.items():
            if (given := self.config.encoder.get(name, lowest)) < lowest:
                raise ClippyError(f"text.encoder.{name} is {given}, and open_clip's text encoder needs {lowest:,}.")

    def _require_fit(self, source: str | None) -> None:
        """ClippyError where the tokenizer's ids or the context are more than the encoder has rows for."""
        rows, positions, padding = self.encoder.rows, self.encoder.positions, int(self.encoder.pad_id)
        if self.tokenizer is not None and self.tokenizer.highest_id >= rows:
            raise ClippyError(
                f"The tokenizer of {source} has ids up to {self.tokenizer.highest_id}; the text encoder has {rows}.",
                "Take the tokenizer files that the encoder was trained with.",
            )
        if not 0 <= padding < rows:
            raise ClippyError(f"text.encoder has the padding id {padding}, and {rows} ids.", "Check pad_token_id.")
        if positions is not None and self.config.context_length > positions:
            raise ClippyError(
                f"text.context_length is {self.config.context_length}; the encoder takes {positions} tokens.",
                f"Set text.context_length: {positions} or less.",
            )

    def _given_tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise ClippyError(
                f"The text tower needs tokenizer files of {self.config.pretrained_tag}, and none were given.",
                _GIVE_FILES,
            )
        return self.tokenizer


class LaterText:
    """A text tower that is loaded when it is first asked for; models that share weights share it."""

    def __init__(self, load: Callable[[], TextTower]) -> None:
        self._load = load
        self._tower: TextTower | None = None

    @property
    def tower(self) -> TextTower:
        """The tower, on the CPU the first time; raises what loading does."""
        if self._tower is None:
            self._tower = self._load()
        return self._tower

    def let_go(self) -> None:
        """Keep the tower no longer; it is loaded again when it is asked for again."""
        self._tower = None


def _hugging_face_encoder(fields: dict[str, Any], *, bare: bool) -> Any:
    shape = bert.Shape.of(fields)
    if bare and shape is not None:
        with torch.device("meta"):
            return bert.BertEncoder(fields, shape)
    from clippy_cli.model.compat.transformers import TextEncoder

    return TextEncoder(fields)


def has_vocabulary(tokenize: Callable[[list[str]], Any]) -> bool:
    """Whether two words get different ids: transformers makes a tokenizer without a vocabulary where files lack.

    ``tokenize`` gives a sequence or tensor of ids a text. ClippyError where its settings do not let it.
    """
    try:
        first, second = tokenize(["dog", "cat"])
    except BaseException as error:  # settings of any type come from files, and meet the code that uses them only here
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise ClippyError(
            f"The tokenizer cannot be used: {type(error).__name__}: {first_line(error)}",
            "Take tokenizer.json and tokenizer_config.json of the model's repository again.",
        ) from (error if isinstance(error, Exception) else None)
    return list(first) != list(second)


def _hugging_face_tokenizer(source: str, context_length: int) -> Any:
    for path in sorted(Path(source).iterdir()) if is_folder(Path(source)) else ():
        if path.suffix in _DESCRIPTIONS and path.stat().st_size > MAX_SMALL_FILE:
            raise ClippyError(f"{path} is larger than {MAX_SMALL_FILE >> 20} MiB: it is not a tokenizer.", _GIVE_FILES)
    try:
        tokenizer = _tokenizer(source, context_length)
        told_apart = has_vocabulary(tokenizer)
    except ClippyError:
        raise
    except Exception as error:  # transformers and tokenizers let through whatever bad files lead to
        raise ClippyError(
            f"No tokenizer could be loaded from {source!r}: {type(error).__name__}: {first_line(error)}", _GIVE_FILES
        ) from error
    except BaseException as error:  # what a panic in tokenizers becomes is no Exception
        if type(error).__name__ != _PANIC:
            raise
        raise ClippyError(f"The tokenizer files of {source!r} are damaged: {first_line(error)}", _GIVE_FILES) from None
    if not told_apart:
        raise ClippyError(f"The tokenizer files of {source!r} hold no vocabulary.", _GIVE_FILES)
    return tokenizer


def _tokenizer(source: str, context_length: int) -> Any:
    own = WordPiece.of(Path(source), context_length) if is_folder(Path(source)) else None
    if own is not None:
        return own
    from clippy_cli.model.compat.transformers import TextTokenizer

    return TextTokenizer(source, context_length)
