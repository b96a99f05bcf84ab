"""The CLIPpy authors' notebook, repeated from a plain reading of it on a tiny random checkpoint and a tiny VOC."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clippy_cli.data.benchmarks.base import SegmentedImage
from clippy_cli.data.benchmarks.catalogue import load_spec
from clippy_cli.data.benchmarks.framed import Frame, framed, middle_square
from clippy_cli.data.benchmarks.scenes import SceneBenchmark
from clippy_cli.errors import ClippyError
from clippy_cli.evaluation.evaluate import evaluate
from clippy_cli.evaluation.settings import Overrides
from clippy_cli.evaluation.tasks.base import Options
from clippy_cli.model.patch_forms import pools_prefix, with_pool_prefix
from clippy_cli.model.sources.authors import import_checkpoint
from tests.fixtures.authors_checkpoint import build_authors
from tests.fixtures.benchmark_trees import voc_palette
from tests.fixtures.data import noise

SIDE = 224
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # open_clip/constants.py
SIZES = {"a": (75, 101), "b": (120, 66), "c": (64, 64)}  # height, width


def notebook_words():
    spec = load_spec("voc-train")
    names = [*(prompts[0] for prompts in spec.classes.values()), *spec.context]
    return names, [f"a photo of {'an' if name.startswith(tuple('aeiou')) else 'a'} {name}" for name in names]


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    """The towers, and the model that clippy imports from their state."""
    folder = tmp_path_factory.mktemp("authors")
    words = [word for prompt in notebook_words()[1] for word in prompt.split()]
    *towers, state = build_authors(folder, side=SIDE, words=words)
    torch.save(state, folder / "clippy_5k.pt")
    model = import_checkpoint(
        folder / "clippy_5k.pt", architecture=str(folder / "tiny.yaml"), tokenizer=str(folder / "tokenizer")
    )
    return towers, model


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for seed, (key, (height, width)) in enumerate(SIZES.items()):
        coarse = Image.fromarray(noise(6, 8, seed=seed)).resize((width, height), Image.Resampling.BICUBIC)
        coarse.save(folder / "JPEGImages" / f"{key}.jpg")
        blocks = rng.choice([*range(21), 255], size=(5, 7)).astype(np.uint8)
        mask = Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)
        mask.putpalette(voc_palette())
        mask.save(folder / "SegmentationClass" / f"{key}.png")
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(SIZES))
    return root


def preprocessed(path):
    """open_clip/transform.py: Resize (PIL, bicubic), CenterCrop, ToTensor, Normalize."""
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    width, height = (int(SIDE * length / short) for length in image.size)
    left, top = round((width - SIDE) / 2.0), round((height - SIDE) / 2.0)
    image = image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + SIDE, top + SIDE))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return ((pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None])[None]


def text_vectors(towers, tokenizer, prompts):
    _, encoder, dense = towers
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    hidden = encoder(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    mask = tokens.attention_mask[..., None]
    return F.normalize(dense((hidden * mask).sum(dim=1) / mask.sum(dim=1)), dim=-1)


def notebook_matrix(towers, texts, voc):
    """evaluation/segmentation.py: features upsampled, compared with 60 texts; 21 and above are background."""
    matrix = np.zeros((21, 21), np.int64)
    for key in SIZES:
        image = preprocessed(voc / "VOCdevkit/VOC2012/JPEGImages" / f"{key}.jpg")
        mask = Image.open(voc / "VOCdevkit/VOC2012/SegmentationClass" / f"{key}.png").resize((SIDE, SIDE))
        label = np.array(mask).astype(np.int64)
        patches = F.normalize(towers[0].forward_features(image)[:, 1:], dim=-1)  # (1,N,D)
        maps = patches.view(1, 14, 14, -1).permute(0, 3, 1, 2)
        full = F.interpolate(maps, scale_factor=16, mode="bilinear")[0]  # (D,224,224)
        answer = torch.einsum("dhw,kd->khw", full, texts).argmax(dim=0).numpy()
        answer[answer > 20] = 0
        seen = label < 255
        matrix += np.bincount(21 * label[seen] + answer[seen], minlength=441).reshape(21, 21)
    return matrix


@torch.no_grad()
def test_the_confusion_matrix_is_the_notebooks(authors, voc):
    towers, model = authors
    texts = text_vectors(towers, model.text.tokenizer.tokenizer, notebook_words()[1])
    expected = notebook_matrix(towers, texts, voc)
    document = evaluate("voc-train", model, data_root=voc, tasks="segment", protocol="clippy-notebook")
    (result,) = document.results
    found = np.zeros((21, 21), np.int64)
    for annotated, predicted, count in result.confusion:
        found[annotated, predicted] = count
    assert found.sum() == expected.sum()
    assert np.abs(found - expected).sum() <= 4  # two pixels on a border may round either way
    assert (found > 0).any(axis=0).sum() > 5  # the model is no constant
    assert result.protocol["frame"] == "center crop, the whole mask squashed to it"
    assert result.protocol["positions"] == "dino" and result.data.name == "voc-train"
    squares = evaluate("voc-train", model, data_root=voc, tasks="segment", overrides=Overrides(resolution=SIDE))
    assert "frame" not in squares.results[0].protocol
    assert sum(count for *_, count in squares.results[0].confusion) != expected.sum()  # masks at their own size


@torch.no_grad()
def test_patches_away_from_224_are_those_of_infer_model(authors):
    (trunk, *_), model = authors
    images = torch.randn(1, 3, 160, 336)
    maps = trunk.pos_embed[:, 1:].view(1, 14, 14, -1).permute(0, 3, 1, 2)
    table = F.interpolate(maps, scale_factor=((10 + 0.1) / 14, (21 + 0.1) / 14), mode="bicubic")
    patches = trunk.patch_embed.proj(images) + table  # (1,D,10,21)
    first = (trunk.cls_token + trunk.pos_embed[:, :1]).expand(1, -1, -1)
    tokens = torch.cat([first, patches.flatten(2).mT], dim=1)
    for block in trunk.blocks:
        tokens = block(tokens)
    wanted = F.normalize(trunk.norm(tokens)[:, 1:], dim=-1).view(1, 10, 21, -1)
    torch.testing.assert_close(model.embed_patches(images), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_maximum_over_the_class_token_is_a_view_and_is_named(authors, tmp_path):
    (trunk, *_), model = authors
    images = torch.randn(2, 3, SIDE, SIDE)
    tokens = trunk.forward_features(images)
    for include in (True, False):
        view = with_pool_prefix(model, include)
        wanted = F.normalize(tokens[:, 0 if include else 1 :].amax(dim=1), dim=-1)
        torch.testing.assert_close(view.embed_images(images), wanted, atol=1e-5, rtol=1e-5)
    assert pools_prefix(model) is False and with_pool_prefix(model, False) is model
    for name in ("car", "dog"):
        (tmp_path / name).mkdir()
        Image.fromarray(noise(40, 50)).save(tmp_path / name / "1.png")
    (result,) = evaluate(tmp_path, model, overrides=Overrides(pool_prefix=True)).results
    assert result.protocol["pooling"] == "patches and class token"
    assert result.protocol["name"] == "clippy, changed: pool_prefix"


def test_the_train_split_has_the_words_of_val_and_says_what_it_is():
    train, val = load_spec("voc-train"), load_spec("voc")
    assert (train.classes, train.context, train.ignore) == (val.classes, val.context, val.ignore)
    assert (train.split, train.complete) == ("train", 1464)


def test_margins_of_half_a_pixel_go_to_the_even_side_as_in_torchvision():
    image = np.arange(4 * 7, dtype=np.uint8).reshape(4, 7, 1).repeat(3, axis=2)
    assert middle_square(image, 4)[0, :, 0].tolist() == [2, 3, 4, 5]  # a margin of 1.5 on the left is 2
    assert middle_square(image[:, :5], 4)[0, :, 0].tolist() == [0, 1, 2, 3]  # 0.5 is 0


def test_regions_do_not_fit_squares(authors, voc, tmp_path):
    with pytest.raises(ClippyError, match="cuts photos to squares"):
        evaluate(
            "voc-train",
            authors[1],
            data_root=voc,
            tasks="segment",
            protocol="clippy-notebook",
            options=Options(regions=tmp_path),
        )


def test_squares_say_what_their_set_says():
    scenes = SceneBenchmark(2, 48)
    scenes.notices.skipped("photo", "type .heic is not read", "a.heic")
    squares = framed(scenes, Frame.SQUASHED_MASKS, 32)
    assert squares.notices.incomplete and [*squares.notices] == [*scenes.notices]
    assert (len(squares), squares.key(1), squares.info) == (2, "scene-1", scenes.info)
    sample = squares.read(1)
    assert isinstance(sample, SegmentedImage)
    assert sample.image.shape == (32, 32, 3) and sample.mask.shape == (32, 32)
