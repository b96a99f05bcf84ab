"""transformers: text encoders without its pretrained entry points, tokenizers, quiet loading."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, AutoTokenizer
from transformers.utils import logging as transformers_logging

from clippy_cli.errors import ClippyError
from clippy_cli.model.bert import mean_of_tokens
from clippy_cli.model.choices import PositionResampling
from clippy_cli.model.compat.hub import hub_session
from clippy_cli.model.positions import resample_positions
from clippy_cli.model.wordpiece import cleaned

ENCODERS = ("bert", "roberta", "xlm-roberta")
_OWN_RULE = PositionResampling.PLAIN  # of every ``interpolate_pos_encoding`` here
HALVES = ("t5", "mt5", "m2m_100")  # encoder-decoders, whose encoder is taken


@contextmanager
def quiet_session(source: str | None = None) -> Iterator[bool]:
    """:func:`~clippy_cli.model.compat.hub.hub_session`, in which transformers shows no bars and no warnings either."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with hub_session(source) as local_files_only:
            yield local_files_only
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


class TextEncoder(nn.Module):
    """An encoder with random weights and the mean of its last hidden states, padding left out.

    Its one child is called ``transformer``, as in open_clip's adapter, which checkpoints and exports count on.

    Args:
        fields: the encoder's own ``config.json``. ClippyError where its ``model_type`` is not known here.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__()
        kind = fields.get("model_type")
        if kind not in (*ENCODERS, *HALVES):
            raise ClippyError(
                f"text.encoder.model_type is {kind!r}; the text encoders of transformers that clippy knows are "
                f"{', '.join(sorted((*ENCODERS, *HALVES)))}."
            )
        self.config = encoder_config(fields)
        if kind in HALVES:
            self.transformer: Any = AutoModel.from_config(self.config).encoder
        else:
            self.transformer = AutoModel.from_config(self.config, add_pooling_layer=False)
        self.width = int(self.config.hidden_size)
        self.pad_id = int(self.config.pad_token_id)
        self.rows = int(self.config.vocab_size)
        self.positions = _positions(self.config) if kind in ENCODERS else None

    def forward(self, token_ids: Tensor) -> Tensor:
        """(K,L) token ids -> (K,F)."""
        mask = (token_ids != self.pad_id).long()
        hidden = self.transformer(input_ids=token_ids, attention_mask=mask).last_hidden_state  # (K,L,F)
        return mean_of_tokens(hidden, mask)


def encoder_config(fields: Mapping[str, Any]) -> Any:
    """transformers' configuration of an encoder's own ``config.json``."""
    kind = fields["model_type"]
    settings = {name: value for name, value in fields.items() if name != "model_type"}
    if kind in ("t5", "mt5"):  # both halves are built, a small decoder among them, and the encoder is kept
        settings |= {"is_encoder_decoder": True, "num_decoder_layers": 1}
    return AutoConfig.for_model(kind, **settings)


def _positions(config: Any) -> int:
    """Tokens that an encoder with a position table takes; RoBERTa's first ones are for padding."""
    offset = 0 if config.model_type == "bert" else int(config.pad_token_id) + 1
    return int(config.max_position_embeddings) - offset


def encoder_weights(source: str) -> dict[str, Tensor]:
    """Weights of a folder or Hugging Face name, keyed as in :class:`TextEncoder`; raises what transformers does."""
    with quiet_session(source) as local:
        donor = AutoModelForTextEncoding.from_pretrained(source, local_files_only=local)
    stack = donor.encoder if donor.config.model_type in HALVES else donor
    return {
        f"transformer.{name}": value for name, value in stack.state_dict().items() if not name.startswith("pooler.")
    }


class TextTokenizer:
    """The tokenizer of a folder or Hugging Face name, behind open_clip's signature and with its cleaning of texts."""

    def __init__(self, source: str, context_length: int) -> None:
        with quiet_session(source) as local:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=local)
        self.context_length = context_length

    def __call__(self, texts: list[str], context_length: int | None = None) -> Tensor:
        """K strings -> (K,L) int64 ids, padded to the context."""
        tokens = self.tokenizer(
            [cleaned(text) for text in texts],
            return_tensors="pt",
            max_length=context_length or self.context_length,
            padding="max_length",
            truncation=True,
        )
        ids: Tensor = tokens.input_ids
        return ids

    @property
    def highest_id(self) -> int:
        """The largest id that a text can become."""
        return max(self.tokenizer.get_vocab().values(), default=0)

    def save_pretrained(self, folder: str) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save_pretrained(folder)


def pooled(features: Any) -> Tensor:
    """The vectors of ``get_image_features``: transformers 4 returns them, transformers 5 an output that holds them."""
    vectors: Tensor = features if isinstance(features, Tensor) else features.pooler_output
    return vectors


def embed(vision: Any, images: Tensor, positions: PositionResampling) -> Tensor:
    """(B,3,H,W) -> (B,P+N,F): what the vision model's embeddings give, with positions resampled by ``positions``.

    transformers resamples by the rule ``plain``; for others the difference of the two tables is added, since positions
    come last there.
    """
    embeddings = vision.embeddings
    tokens: Tensor = embeddings(images, interpolate_pos_encoding=True)
    if positions is _OWN_RULE:
        return tokens
    owner = getattr(embeddings, "position_embedding", None)  # CLIP's and SigLIP's; GroupViT's is a tensor
    table = (embeddings.position_embeddings if owner is None else owner.weight[None]).detach()  # (1,P+n,F)
    patch = embeddings.patch_embedding if owner is not None else embeddings.patch_embeddings.projection
    grid = images.shape[-2] // patch.stride[0], images.shape[-1] // patch.stride[1]
    prefix = tokens.shape[1] - grid[0] * grid[1]
    wanted, given = (resample_positions(table, grid, None, prefix, rule) for rule in (positions, _OWN_RULE))
    return tokens + (wanted - given)


def encode(vision: Any, hidden: Tensor) -> Tensor:
    """(B,P+N,F) from :func:`embed` -> the same after CLIP's or SigLIP's blocks; SigLIP's last norm is included."""
    normed = vision.pre_layrnorm(hidden) if hasattr(vision, "pre_layrnorm") else hidden
    tokens: Tensor = vision.encoder(inputs_embeds=normed).last_hidden_state
    return tokens if hasattr(vision, "pre_layrnorm") else vision.post_layernorm(tokens)


def group_vit_patches(model: Any, images: Tensor, positions: PositionResampling) -> tuple[Tensor, Tensor]:
    """(B,3,H,W) -> (B,G,F) groups of the last stage, (B,N,G) soft assignment of patches to them through all stages."""
    vision = model.vision_model
    hidden = embed(vision, images, positions)
    encoded = vision.encoder(hidden, output_hidden_states=False, output_attentions=True, return_dict=True)
    first, *later = (stage.transpose(1, 2) for stage in encoded.attentions)  # (B,G,N) -> (B,N,G)
    assignment: Tensor = first
    for step in later:
        assignment = assignment @ step
    return vision.layernorm(encoded.last_hidden_state), assignment
