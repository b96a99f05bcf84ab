"""Peers of the default model's size with random weights, in folders that transformers loads without a network.

Their speed does not depend on the values of weights; what they answer means nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from open_clip.tokenizer import SimpleTokenizer

RESOLUTION = 224
IMAGE = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3, "num_hidden_layers": 12}  # ViT-Ti
TEXT = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12, "num_hidden_layers": 6}  # MiniLM
TINY = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
GROUPING = {"depths": [6, 3, 3], "num_group_tokens": [64, 8, 0], "num_output_groups": [64, 8, 0]}  # GroupViT's own


def make_peers(folder: Path, *, tiny: bool) -> None:
    """Write ``clip``, ``clipseg`` and ``groupvit`` below ``folder``, each with its processor."""
    image, text = (TINY, TINY) if tiny else (IMAGE, TEXT)
    image = {**image, "image_size": RESOLUTION, "patch_size": 16}
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)
    clip = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=384)
    clipseg = transformers.CLIPSegConfig(
        text_config=text,
        vision_config=image,
        projection_dim=384,
        extract_layers=[0, 1] if tiny else [3, 6, 9],
        reduce_dim=32 if tiny else 64,
        decoder_num_attention_heads=2 if tiny else 4,
    )
    groupvit = transformers.GroupViTConfig(
        text_config=text,
        vision_config={**image, **GROUPING, "num_hidden_layers": 12},
        projection_dim=256,
        projection_intermediate_dim=4096,
    )
    tokenizer = clip_tokenizer()
    pixels = {"size": {"shortest_edge": RESOLUTION}, "crop_size": {"height": RESOLUTION, "width": RESOLUTION}}
    _save(folder / "clip", transformers.CLIPModel(clip), _clip_processor(tokenizer, pixels))
    _save(folder / "groupvit", transformers.GroupViTModel(groupvit), _clip_processor(tokenizer, pixels))
    square = transformers.ViTImageProcessor(size={"height": RESOLUTION, "width": RESOLUTION})
    _save(
        folder / "clipseg",
        transformers.CLIPSegForImageSegmentation(clipseg),
        transformers.CLIPSegProcessor(square, tokenizer),
    )


def clip_tokenizer() -> Any:
    """CLIP's tokenizer of transformers, from the vocabulary that comes with open_clip."""
    known = SimpleTokenizer()
    vocabulary = dict(known.encoder)
    begin, end = (token for token, number in vocabulary.items() if number >= len(vocabulary) - 2)
    vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"] = vocabulary.pop(begin), vocabulary.pop(end)
    return transformers.CLIPTokenizer(vocab=vocabulary, merges=list(known.bpe_ranks), model_max_length=77)


def _clip_processor(tokenizer: Any, pixels: dict[str, Any]) -> Any:
    return transformers.CLIPProcessor(transformers.CLIPImageProcessor(**pixels), tokenizer)


def _save(folder: Path, model: Any, processor: Any) -> None:
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
