"""CLIPpy (arXiv 2210.09996, section 3), top to bottom: two towers, a spatial pooling, one set of patch embeddings.

Shape legend: B batch, N patch tokens, P prefix tokens, K kept patches or texts, L token ids of a text, F trunk
features, D joint embedding, h,w patch grid, H,W pixels.

    (B,3,H,W) -- trunk --> (B,P+N,F) -- projection of each token --> (B,P+N,D) -- pooling --> (B,D)   image
    (K,L) ----- encoder, mean of tokens --> (K,F) ----- projection ----------------> (K,D)            text
    image x text -> (B,K) cosines, times the logit scale in the loss                                  logits
    (B,P+N,D) without the prefix, unit norm -> (B,h,w,D), compared with the same texts                patches

Under the pooling cls+avg, which is dino.txt's and not the paper's, an image is two tokens side by side: tokens and
patches have D/2 values, and patches are compared with the second half of the texts.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from clippy_cli.model.base import InferenceDefaults, Preprocess, finite
from clippy_cli.model.choices import DenseMode, Pooling, PositionResampling, Precision
from clippy_cli.model.compat.torch import repeated_blocks, with_child
from clippy_cli.model.config import ImageTowerConfig, ModelConfig
from clippy_cli.model.dense.dense import PLAIN, Dense
from clippy_cli.model.image_tower import ImageTower
from clippy_cli.model.pooling import affinity_mean, at_least_float32, lse_scores, normalized, pool_tokens
from clippy_cli.model.precision import in_precision
from clippy_cli.model.text_batches import embed_by_length
from clippy_cli.model.text_tower import LaterText, TextTower
from clippy_cli.model.vit import PlainViT, plain_shape
from clippy_cli.model.vit_tower import VitTower


class Clippy(nn.Module):
    """The package's own :class:`~clippy_cli.model.base.VisionLanguageModel`.

    Inference uses the ``embed_*`` methods and ``score_images``, which never drop a token; the others carry gradients.

    Attributes:
        config: the architecture, and the form of patches that inference takes.
        dense: how the last block attends where patches are wanted; plain unless the model is a view.
        precision: in which the image tower computes (see ``precision.py``); compiled: whether torch compiled it.
        log_logit_scale: learned logarithm of the factor of a cosine in the loss (CLIP, arXiv 2103.00020, figure 3).
        patch_mean: (D,) mean training patch, which the centered form subtracts; zeros where none was measured; (D/2,)
            under cls+avg.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        tokenizer_files: str | None = None,
        bare: bool = False,
        later: LaterText | None = None,
    ) -> None:
        """``bare``, ``later``: see :func:`~clippy_cli.model.assembly.assemble`."""
        super().__init__()
        self.config = config
        self.dense = PLAIN
        self.precision, self.compiled = Precision.FP32, False
        self.image = build_image_tower(config.image, config.patch_dim, bare=bare)
        self._later = later
        if later is None:
            self._modules["text"] = TextTower(config.text, config.embed_dim, tokenizer_files, bare=bare)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale_init)))
        self.patch_mean: Tensor
        self.register_buffer("patch_mean", torch.zeros(config.patch_dim))
        self.preprocess = Preprocess(
            config.preprocess.mean, config.preprocess.std, self.image.patch_size, config.preprocess.resolution
        )

    # Image tokens: the trunk of self-supervised weights (sections 3 and 4.1); in training some patches are dropped
    # before it (section 3.3, ``sampling.py``).

    def image_tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W), optional (B,K) kept patches -> (B,P+N,D) tokens in the joint space, not normalized."""
        return in_precision(self.precision, images.device, lambda: self.joint_tokens(self.image.features(images, keep)))

    # Projection: each token by itself and before pooling, so that patches lie in the joint space (section 3.2). The
    # paper's model needs none, since its trunk is as wide as the joint space. ``image.head_blocks`` come before it.

    def joint_tokens(self, features: Tensor) -> Tensor:
        """(B,P+N,F) trunk tokens -> (B,P+N,D) as inference takes them; training leaves the affinities out."""
        tokens = self._checked(self.image.project(features))
        inference = self.config.inference
        if inference.affinity_block is None:
            return tokens
        prefix = self.image.num_prefix_tokens
        keys = self.image.block_features(features[:, prefix:], inference.affinity_block)
        patches = affinity_mean(tokens[:, prefix:], keys, inference.affinity_scale)
        return torch.cat([tokens[:, :prefix].to(patches.dtype), patches], dim=1)

    # Pooling: the channel-wise maximum over the image's patches (section 3.2), or one of its rivals (``pooling.py``).

    def pool(self, tokens: Tensor) -> Tensor:
        """(B,P+N,D) tokens -> (B,D), unit norm; tokens have D/2 values under cls+avg."""
        image = self.config.image
        pooled = pool_tokens(
            at_least_float32(tokens), image.pooling, self.image.num_prefix_tokens, pool_prefix=image.pool_prefix_tokens
        )
        return normalized(pooled)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,D), unit norm. Under ``lse`` this is the normalized mean of the unit patch vectors."""
        return self.pool(self.image_tokens(images))

    # Text: Sentence-T5 in the paper (sections 3 and 4.1), the mean of its tokens and its own dense layer. Most weights
    # of a small model are here, and photos alone do not need them: a loaded model reads them when they are asked for.

    @property
    def text(self) -> TextTower:
        """The text tower, which is loaded now where that was put off; ClippyError as for any loading."""
        if "text" not in self._modules:
            assert self._later is not None
            self._modules["text"] = self._later.tower.to(self.patch_mean).train(self.training)
        return cast("TextTower", self._modules["text"])

    def let_go_of_texts(self) -> None:
        """Free the text tower's memory where it can be read again; nothing where it cannot."""
        if self._later is not None:
            self._modules.pop("text", None)
            self._later.let_go()

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, the text tower included; parameters and buffers are found by it."""
        assert self.text is not None
        yield from super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As torch's, the text tower included."""
        assert self.text is not None
        return super().state_dict(*args, **kwargs)

    def text_vectors(self, token_ids: Tensor) -> Tensor:
        """(K,L) token ids -> (K,D), unit norm."""
        return normalized(self._checked(self.text.project(self.text.features(token_ids))))

    def patch_text_vectors(self, token_ids: Tensor) -> Tensor:
        """(K,L) token ids -> (K,D) for patches, unit norm; under cls+avg the second half, (K,D/2)."""
        vectors = self._checked(self.text.project(self.text.features(token_ids)))
        return normalized(vectors[:, -self.config.patch_dim :])

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), unit norm; an empty sequence gives (0,D)."""
        return self._in_batches(self.text_vectors, texts, self.config.embed_dim)

    @torch.no_grad()
    def embed_patch_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), what patches are compared with; (K,D/2) under cls+avg, whose second half is of patches.

        That half is brought to unit norm by itself, text by text, as dino.txt's public notebooks do.
        """
        return self._in_batches(self.patch_text_vectors, texts, self.config.patch_dim)

    def _checked(self, vectors: Tensor) -> Tensor:
        """ClippyError for NaN and inf in inference; a training step looks at its loss."""
        return vectors if torch.is_grad_enabled() or self.training else finite(vectors, self.name)

    def _in_batches(self, embed: Callable[[Tensor], Tensor], texts: Sequence[str], width: int) -> Tensor:
        if not texts:
            return torch.empty(0, width, device=self.device)
        ids, pad = self.text.tokenize(texts), self.text.pad_id  # (K,L)
        lengths = [ids.shape[1]] * len(ids) if pad is None else (ids != pad).sum(dim=1).tolist()
        return embed_by_length(
            lambda rows: embed(ids[rows, : max(lengths[row] for row in rows)].to(self.device)), lengths
        )

    # Logits: cosines of images and texts, which the loss multiplies with the logit scale (CLIP, figure 3). ``lse`` is
    # no dot product of two vectors: it pools the cosines of the patches.

    @property
    def scores_are_dot_products(self) -> bool:
        """Whether an image-text score is the dot product of two pooled vectors, which ``lse`` is not."""
        return self.config.image.pooling != Pooling.LSE

    @property
    def lse_scale(self) -> float | None:
        """Inverse temperature of the training's pooling of similarities; None where a score is a dot product."""
        return None if self.scores_are_dot_products else self.config.image.lse_scale

    def score_tokens(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """(B,P+N,D) tokens, (K,D) unit texts -> (B,K) in [-1, 1]: a cosine, or its log-mean-exp over patches (lse)."""
        if self.scores_are_dot_products:
            return self.pool(tokens) @ texts.T
        patches = normalized(tokens[:, self.image.num_prefix_tokens :])
        return lse_scores(patches, texts, self.config.inference.lse_scale or self.config.image.lse_scale)

    @torch.no_grad()
    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        """(B,3,H,W), (K,D) text embeddings -> (B,K) in [-1, 1], the score that the model was trained with."""
        return self.score_tokens(self.image_tokens(images), texts)

    # Patches: the same tokens, each for itself; groups (bottom-up) and labels (top-down) both come from them
    # (section 3.5). The form and the dense mode are not the paper's; see ``patch_forms.py``.

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,N,D): the tokens that patch embeddings are made of, not normalized."""
        if self.dense.mode is DenseMode.PLAIN:
            tokens = self.image_tokens(images)
        else:
            proxy, mode = self.dense.proxy_patches(images, self.preprocess), self.dense.mode
            tokens = in_precision(
                self.precision,
                images.device,
                lambda: self.joint_tokens(self.image.dense_features(images, mode, proxy)),
            )
        return tokens[:, self.image.num_prefix_tokens :]

    @torch.no_grad()
    def embed_patches(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,h,w,D), unit norm, in the form that the configuration says; (B,h,w,D/2) under cls+avg."""
        h, w = self.image.grid_size(images.shape[-2], images.shape[-1])
        patches = self.patch_tokens(images).float()  # (B,N,D)
        if self.config.inference.centre_patches:
            patches = patches - self.patch_mean
        return normalized(finite(patches, self.name)).view(len(images), h, w, -1)  # (B,N,D) -> (B,h,w,D)

    def view(self, *, config: ModelConfig | None = None, dense: Dense | None = None) -> Clippy:
        """The same weights under another configuration or dense mode; this model stays as it is."""
        config = config or self.config
        other = copy.copy(self)
        if config.image != self.config.image:
            other = with_child(self, "image", self.image.view(config.image))
        other.config = config
        other.dense = dense or self.dense
        return other

    @property
    def positions(self) -> PositionResampling | None:
        """How the position table is resampled to other grids; None where there is no table to choose for."""
        return self.image.positions

    def with_positions(self, rule: PositionResampling) -> Clippy:
        """A view whose position table is resampled by ``rule``."""
        image = self.config.image.model_copy(update={"positions": rule})
        return self.view(config=self.config.model_copy(update={"image": image}))

    def with_dense(self, dense: Dense) -> Clippy:
        """A view with patches by ``dense``; ClippyError where the image tower is no plain vision transformer."""
        self.image.require_dense(self.name)
        return self.view(dense=dense)

    def with_precision(self, precision: Precision) -> Clippy:
        """A view whose image tower computes in ``precision``."""
        other = self.view()
        other.precision = precision
        return other

    def compile_image_tower(self) -> None:
        """Compile the repeated blocks of its trunk in place, once for all numbers of images and tokens."""
        self.compiled = True
        for block in repeated_blocks(self.image.trunk):
            block.compile(dynamic=True)

    # What tables say of it, and what inference takes where the user says nothing.

    @property
    def name(self) -> str:
        return self.dense.describe(self.config.name)

    @property
    def device(self) -> torch.device:
        return self.patch_mean.device

    @property
    def defaults(self) -> InferenceDefaults:
        inference = self.config.inference
        scale = math.exp(float(self.log_logit_scale.detach()))
        return InferenceDefaults(inference.resolution, inference.templates, scale)

    @property
    def reads_texts(self) -> bool:
        return True


def build_image_tower(config: ImageTowerConfig, token_dim: int, *, bare: bool = False) -> ImageTower:
    """The tower for a trunk of EfficientNet, with rotary positions, or of plain vision transformers; ClippyError.

    ``bare``: see :func:`~clippy_cli.model.assembly.assemble`.
    """
    shape = plain_shape(config.trunk, config.trunk_args)
    if bare and shape is not None:
        with torch.device("meta"):
            trunk = PlainViT(shape)
        return VitTower(config, token_dim, trunk)
    from clippy_cli.model.compat.timm import is_efficientnet, is_rotary

    if is_efficientnet(config.trunk):
        from clippy_cli.model.conv_tower import ConvTower

        return ConvTower(config, token_dim)
    if is_rotary(config.trunk):
        from clippy_cli.model.rotary_tower import RotaryTower

        return RotaryTower(config, token_dim)
    return VitTower(config, token_dim)
