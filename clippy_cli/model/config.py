"""What a model is made of, as read from ``architectures/*.yaml`` and from a model directory's ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from clippy_cli.model.choices import Pooling, PositionResampling

MAX_SIDE = 1 << 14  # pixels
MAX_WIDTH = 1 << 16
MAX_TOKENS = 1 << 15  # of a text
MAX_DEPTH = 1 << 9
_SIZES = ("depth", "layers", "heads", "dim", "size", "width")  # how names of settings end that are never negative
_WIDTHS = ("embed_dim", "width", "hidden_size", "d_model")
MAX_NUMBER = 1 << 24  # of any other setting of a trunk or an encoder, such as the size of its vocabulary
# What would load other files, or run code of other places, from a description of sizes.
NOT_SIZES = (
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path", "cache_dir",
    "features_only", "scriptable", "exportable", "auto_map", "attn_implementation", "_attn_implementation",
    "quantization_config", "trust_remote_code",
)  # fmt: skip

Projection = Literal["none", "linear", "mlp"]
TextKind = Literal["open_clip", "hugging_face"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ImageTowerConfig(_Frozen):
    """A timm vision transformer or EfficientNet, a projection of each token, and a pooling."""

    trunk: Annotated[str, Field(description="timm model name")]
    trunk_args: Annotated[
        dict[str, int | float | bool | str], Field(description="extra arguments of the timm constructor")
    ] = {}
    pretrained_tag: Annotated[
        str | None, Field(description="timm weights that `init: pretrained` loads, such as vit_base_patch16_224.dino")
    ] = None
    blocks: Annotated[
        tuple[int, ...] | None,
        Field(description="1-based blocks whose normed tokens are concatenated; null takes the last block"),
    ] = None
    head_blocks: Annotated[
        int, Field(ge=0, le=MAX_DEPTH, description="transformer blocks that learn over the trunk's tokens")
    ] = 0
    projection: Annotated[
        Projection,
        Field(description="map from trunk width to joint width, half of it for cls+avg, applied to each token"),
    ]
    hidden_dim: Annotated[int | None, Field(gt=0, le=MAX_WIDTH, description="hidden width of the mlp projection")] = (
        None
    )
    pooling: Annotated[Pooling, Field(description="how tokens become one vector, or one score for lse")]
    pool_prefix_tokens: Annotated[bool, Field(description="whether max and avg run over the class token too")] = False
    lse_scale: Annotated[float, Field(gt=0, description="inverse temperature of the log-mean-exp over patches")] = 20.0
    positions: Annotated[
        PositionResampling,
        Field(description="how the position table is resampled to other grids, in training and inference"),
    ] = PositionResampling.TIMM


class TextTowerConfig(_Frozen):
    """An open_clip text transformer, or an encoder of transformers, such as BERT or T5."""

    kind: TextKind
    pretrained_tag: Annotated[
        str | None, Field(description="Hugging Face name that `init: pretrained` and the tokenizer are taken from")
    ] = None
    encoder: Annotated[
        dict[str, Any],
        Field(description="open_clip: width, heads, layers, vocab_size; hugging_face: the encoder's own config.json"),
    ]
    context_length: Annotated[int, Field(gt=2, le=MAX_TOKENS, description="tokens a text is cut to")]
    pooling: Annotated[Literal["mean", "eot"], Field(description="mean of the tokens, or the end-of-text token")]
    projection: Annotated[Literal["none", "linear"], Field(description="map from encoder width to joint width")]


class PreprocessConfig(_Frozen):
    """Pixel statistics (RGB in [0, 1]) and the native side of the training image in pixels."""

    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    resolution: Annotated[int, Field(gt=0, le=MAX_SIDE)]


class InferenceConfig(_Frozen):
    """Defaults of dense and zero-shot inference."""

    resolution: Annotated[int, Field(gt=0, le=MAX_SIDE, description="short side in pixels")]
    templates: Annotated[str, Field(description="prompt template set")] = "photo"
    centre_patches: Annotated[
        bool,
        Field(description="subtract the mean training patch embedding before normalising; false is the paper's form"),
    ] = False
    affinity_block: Annotated[
        int | None,
        Field(description="block, one of image.blocks, whose tokens say which patches share embeddings; null for none"),
    ] = None
    affinity_scale: Annotated[float, Field(gt=0, description="how sharply: factor of the tokens' cosines")] = 8.0
    lse_scale: Annotated[
        float | None,
        Field(gt=0, description="lse pooling's inverse temperature in scores of images; null takes image.lse_scale"),
    ] = None


class ModelConfig(_Frozen):
    """One model: two towers that meet in ``embed_dim`` dimensions."""

    name: str
    embed_dim: Annotated[int, Field(gt=0, le=MAX_WIDTH, description="width D of the joint space")]
    image: ImageTowerConfig
    text: TextTowerConfig
    preprocess: PreprocessConfig
    inference: InferenceConfig
    logit_scale_init: Annotated[float, Field(gt=0, description="initial factor of the cosine in the loss")] = 1 / 0.07
    training: Annotated[dict[str, Any], Field(description="how the weights came about; free form")] = {}

    @property
    def patch_dim(self) -> int:
        """Width of a patch embedding: D, or D/2 where an image is two vectors side by side (cls+avg)."""
        return self.embed_dim // Pooling(self.image.pooling).parts

    @model_validator(mode="after")
    def _towers_fit(self) -> ModelConfig:
        for field, given in (("image.trunk_args", self.image.trunk_args), ("text.encoder", self.text.encoder)):
            strange = sorted(set(given) & set(NOT_SIZES))
            if strange:
                raise ValueError(f"{field} says how large it is, and must not set {', '.join(strange)}")
            check_sizes(field, given)
        if self.image.projection == "mlp" and self.image.hidden_dim is None:
            raise ValueError("image.projection: mlp needs image.hidden_dim")
        if self.embed_dim % self.image.pooling.parts:
            raise ValueError(f"embed_dim is {self.embed_dim}; image.pooling: {self.image.pooling} needs an even number")
        if self.image.pool_prefix_tokens and not self.image.pooling.takes_prefix_among_patches:
            raise ValueError(f"image.pool_prefix_tokens does not apply to image.pooling: {self.image.pooling}")
        block = self.inference.affinity_block
        if block is not None and block not in (self.image.blocks or ()):
            raise ValueError(f"inference.affinity_block is {block}, which must be one of image.blocks")
        if block is not None and self.image.pooling.takes_raw_tokens:
            raise ValueError(
                f"inference.affinity_block averages unit patches, which image.pooling: {self.image.pooling} never saw"
            )
        if block is not None and self.inference.centre_patches:
            raise ValueError("inference.centre_patches and inference.affinity_block exclude each other")
        if self.text.kind == "open_clip" and self.text.pooling != "eot":
            raise ValueError("text.kind: open_clip pools at the end-of-text token; set text.pooling: eot")
        if self.text.kind == "hugging_face" and self.text.pooling != "mean":
            raise ValueError("text.kind: hugging_face pools the mean of the tokens; set text.pooling: mean")
        return self


def check_sizes(field: str, given: Mapping[str, Any]) -> None:
    """ValueError where a setting of a trunk or an encoder makes no sense as a size, so that no library tries it."""
    for name, value in given.items():
        most = MAX_DEPTH if name.endswith(("depth", "layers")) else MAX_WIDTH if name in _WIDTHS else MAX_NUMBER
        is_number = isinstance(value, int | float)
        is_fraction = isinstance(value, float) and not value.is_integer()
        if is_number and name.endswith(_SIZES) and (value < 0 or is_fraction):
            raise ValueError(f"{field}.{name} is {value:,}, and must be a whole number from 0")
        if is_number and value > most:
            raise ValueError(f"{field}.{name} is {value:,}, which is more than {most:,}")
