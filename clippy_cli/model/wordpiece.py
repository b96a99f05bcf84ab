"""BERT's tokenizer, so that loading a model does not wait for transformers, and the cleaning of texts before it."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from clippy_cli.regular_files import is_file, read_text

_FILES = {"tokenizer.json", "tokenizer_config.json"}
_CLASSES = ("BertTokenizer", "BertTokenizerFast")
# Settings of ``tokenizer_config.json``: those that change no id here, and the one value that others may have.
_IDLE = {
    "backend", "is_local", "local_files_only", "max_length", "model_max_length", "stride", "truncation_strategy",
    "pad_token_type_id", "tokenizer_class", "clean_up_tokenization_spaces",
}  # fmt: skip
_FIXED = {
    "do_basic_tokenize": True, "never_split": None, "pad_to_multiple_of": None, "padding_side": "right",
    "truncation_side": "right",
}  # fmt: skip
_NORMALIZER = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_PRINTABLE = frozenset(map(chr, range(32, 127))) - {"&"}


class WordPiece:
    """The tokenizer of a folder, behind the signature of :class:`~clippy_cli.model.compat.transformers.TextTokenizer`.

    Its ids are those of transformers' ``BertTokenizer``, which is built from the same vocabulary.
    """

    def __init__(self, folder: Path, pad_id: int, context_length: int) -> None:
        from tokenizers import Tokenizer

        self._folder, self._pad_id, self.context_length = folder, pad_id, context_length
        self._tokenizer: Any = Tokenizer.from_str(read_text(folder / "tokenizer.json"))

    @classmethod
    def of(cls, folder: Path, context_length: int) -> Self | None:
        """The tokenizer of a folder; None where its files are not plainly those of BERT, or cannot be read."""
        try:
            if not is_file(folder / "tokenizer.json") or {path.name for path in folder.iterdir()} != _FILES:
                return None
            described, settings = (json.loads(read_text(folder / name)) for name in sorted(_FILES))
            return (
                cls(folder, described["model"]["vocab"]["[PAD]"], context_length)
                if _agree(described, settings)
                else None
            )
        except Exception:  # transformers reads the same files next, and says what is wrong with them
            return None

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> Tensor:
        """K strings -> (K,L) int64 ids, padded to the context."""
        length = context_length or self.context_length
        self._tokenizer.enable_truncation(length)
        self._tokenizer.enable_padding(length=length, pad_id=self._pad_id, pad_token=_SPECIAL["pad_token"])
        return torch.tensor([found.ids for found in self._tokenizer.encode_batch([cleaned(text) for text in texts])])

    @property
    def highest_id(self) -> int:
        """The largest id that a text can become."""
        return max(self._tokenizer.get_vocab().values(), default=0)

    def save_pretrained(self, folder: str) -> None:
        """Write the tokenizer's files as transformers does."""
        from clippy_cli.model.compat.transformers import TextTokenizer

        theirs = TextTokenizer(str(self._folder), self.context_length)
        theirs([""])  # the length of its last texts is among its files
        theirs.save_pretrained(folder)


def cleaned(text: str) -> str:
    """Mended Unicode, no HTML entities, single blanks: what open_clip does to a text before a tokenizer of others.

    Printable ASCII without ``&`` needs no mending.
    """
    if not _PRINTABLE.issuperset(text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split())


def _agree(described: dict[str, Any], settings: dict[str, Any]) -> bool:
    """Whether ``tokenizer.json`` describes what transformers builds for a BERT with the settings."""
    chosen = {**_NORMALIZER, **{name: settings[name] for name in _NORMALIZER if name in settings}}
    special = {**_SPECIAL, **{name: settings[name] for name in _SPECIAL if name in settings}}
    others = set(settings) - _IDLE - set(_NORMALIZER) - set(_SPECIAL)
    model, first = described["model"], [("SpecialToken", "[CLS]"), ("Sequence", "A"), ("SpecialToken", "[SEP]")]
    vocabulary = model["vocab"]
    steps = [(kind, part["id"]) for step in described["post_processor"]["single"] for kind, part in step.items()]
    added = [
        (token["content"], token["id"], token["special"], token["normalized"]) for token in described["added_tokens"]
    ]
    sides = [token[name] for token in described["added_tokens"] for name in ("lstrip", "rstrip", "single_word")]
    return (
        settings["tokenizer_class"] in _CLASSES
        and all(name in _FIXED and settings[name] == _FIXED[name] for name in others)
        and special == _SPECIAL
        and described["normalizer"]
        == {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": chosen["tokenize_chinese_chars"],
            "strip_accents": chosen["strip_accents"],
            "lowercase": chosen["do_lower_case"],
        }
        and described["pre_tokenizer"] == {"type": "BertPreTokenizer"}
        and (model["type"], model["unk_token"], model["continuing_subword_prefix"]) == ("WordPiece", "[UNK]", "##")
        and model["max_input_chars_per_word"] == 100
        and steps == first
        and [found["ids"] for found in described["post_processor"]["special_tokens"].values()]
        == [[vocabulary["[CLS]"]], [vocabulary["[SEP]"]]]
        and sorted(added) == sorted((token, vocabulary[token], True, False) for token in _SPECIAL.values())
        and not any(sides)
    )
