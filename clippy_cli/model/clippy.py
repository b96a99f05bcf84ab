"""CLIPpy (arXiv 2210.09996, section 3): two towers, a spatial pooling, one set of patch embeddings for every task."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clippy_cli.model.affinity import affinity_mean
from clippy_cli.model.base import InferenceDefaults, Preprocess
from clippy_cli.model.config import ModelConfig
from clippy_cli.model.pooling import at_least_float32, lse_scores, normalized, pool_tokens
from clippy_cli.model.text_tower import TextTower
from clippy_cli.model.towers import build_image_tower

TEXT_BATCH = 256


class Clippy(nn.Module):
    """The package's own :class:`~clippy_cli.model.base.VisionLanguageModel`.

    Inference uses the ``embed_*`` methods and ``score_images``, which never drop a token; the others carry gradients.
    Shapes: see ``model/base.py``.
    """

    def __init__(self, config: ModelConfig, *, tokenizer_files: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.image = build_image_tower(config.image, config.embed_dim)
        self.text = TextTower(config.text, config.embed_dim, tokenizer_files)
        self.log_logit_scale = nn.Parameter(torch.tensor(math.log(config.logit_scale_init)))
        self.patch_mean: Tensor
        self.register_buffer("patch_mean", torch.zeros(config.embed_dim))
        self.preprocess = Preprocess(
            config.preprocess.mean, config.preprocess.std, self.image.patch_size, config.preprocess.resolution
        )

    @property
    def name(self) -> str:
        return self.config.name

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

    @property
    def scores_are_dot_products(self) -> bool:
        """Whether an image-text score is the dot product of two pooled vectors, which ``lse`` is not."""
        return self.config.image.pooling != "lse"

    @property
    def lse_scale(self) -> float | None:
        """Inverse temperature of the training's pooling of similarities; None where a score is a dot product."""
        return None if self.scores_are_dot_products else self.config.image.lse_scale

    def image_tokens(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """(B,3,H,W), optional (B,K) kept patches -> (B,P+N,D) tokens in the joint space, not normalised."""
        return self.joint_tokens(self.image.features(images, keep))

    def joint_tokens(self, features: Tensor) -> Tensor:
        """(B,P+N,F) trunk tokens -> (B,P+N,D) as inference takes them; training leaves the affinities out."""
        tokens = self.image.project(features)
        inference = self.config.inference
        if inference.affinity_block is None:
            return tokens
        prefix = self.image.num_prefix_tokens
        keys = self.image.block_features(features[:, prefix:], inference.affinity_block)
        patches = affinity_mean(tokens[:, prefix:], keys, inference.affinity_scale)
        return torch.cat([tokens[:, :prefix].to(patches.dtype), patches], dim=1)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,N,D): the tokens that patch embeddings are made of, not normalised."""
        return self.image_tokens(images)[:, self.image.num_prefix_tokens :]

    def text_vectors(self, token_ids: Tensor) -> Tensor:
        """(K,L) token ids -> (K,D), unit norm."""
        return normalized(self.text.project(self.text.features(token_ids)))

    def pool(self, tokens: Tensor) -> Tensor:
        """(B,P+N,D) tokens -> (B,D), unit norm."""
        image = self.config.image
        pooled = pool_tokens(
            at_least_float32(tokens), image.pooling, self.image.num_prefix_tokens, pool_prefix=image.pool_prefix_tokens
        )
        return normalized(pooled)

    def score_tokens(self, tokens: Tensor, texts: Tensor) -> Tensor:
        """(B,P+N,D) tokens, (K,D) unit texts -> (B,K) in [-1, 1]: a cosine, or its log-mean-exp over patches (lse)."""
        if self.scores_are_dot_products:
            return self.pool(tokens) @ texts.T
        patches = normalized(tokens[:, self.image.num_prefix_tokens :])
        return lse_scores(patches, texts, self.config.inference.lse_scale or self.config.image.lse_scale)

    @torch.no_grad()
    def embed_images(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,D), unit norm. Under ``lse`` this is the normalised mean of the unit patch vectors."""
        return self.pool(self.image_tokens(images))

    @torch.no_grad()
    def embed_patches(self, images: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,h,w,D), unit norm, in the form that the configuration says (see ``patch_forms.py``)."""
        h, w = self.image.grid_size(images.shape[-2], images.shape[-1])
        patches = self.patch_tokens(images).float()  # (B,N,D)
        if self.config.inference.centre_patches:
            patches = patches - self.patch_mean
        return normalized(patches).view(len(images), h, w, -1)  # (B,N,D) -> (B,h,w,D)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """K strings -> (K,D), unit norm; an empty sequence gives (0,D)."""
        vectors = [
            self.text_vectors(self.text.tokenize(texts[start : start + TEXT_BATCH]).to(self.device))
            for start in range(0, len(texts), TEXT_BATCH)
        ]
        return torch.cat(vectors) if vectors else torch.empty(0, self.config.embed_dim, device=self.device)

    @torch.no_grad()
    def score_images(self, images: Tensor, texts: Tensor) -> Tensor:
        """(B,3,H,W), (K,D) text embeddings -> (B,K) in [-1, 1], the score that the model was trained with."""
        return self.score_tokens(self.image_tokens(images), texts)
