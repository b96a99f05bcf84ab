"""Kept embeddings: equal to the last bit, never those of other texts or weights, and harmless wherever they lie."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clippy_cli.data.prompts import patch_prompt_embeddings, prompt_embeddings, prompt_request, text_embeddings
from clippy_cli.data.text_cache import TextCache, TextRequest
from clippy_cli.model.registry import SHIPPED_MODELS
from clippy_cli.model.store import save_model
from tests.conftest import REPOSITORY, nano_model

NAMES, TEMPLATES = ["dog", "cat"], ["a {}", "the {}"]
REQUEST = TextRequest(("a dog", "the dog", "a cat", "the cat"), 2, "images")
VECTORS = np.arange(6, dtype=np.float32).reshape(2, 3)


class Counting:
    """A model that counts the texts it embeds."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.embedded = 0

    def embed_texts(self, texts):
        self.embedded += len(texts)
        rows = torch.tensor([[len(text), sum(text.encode()), 1.0] for text in texts])
        return torch.nn.functional.normalize(rows / 7, dim=1)


@pytest.mark.parametrize(
    "embed",
    [
        lambda model, cache: prompt_embeddings(model, NAMES, TEMPLATES, cache=cache),
        lambda model, cache: patch_prompt_embeddings(model, NAMES, TEMPLATES, cache=cache),
        lambda model, cache: text_embeddings(model, NAMES, cache=cache),
    ],
    ids=["images", "patches", "texts"],
)
def test_what_is_kept_is_bit_equal_and_not_computed_again(tmp_path, embed):
    model, cache = Counting(), TextCache("weights", tmp_path)
    anew, first = embed(model, None), embed(model, cache)
    count = model.embedded
    kept = embed(model, TextCache("weights", tmp_path))
    assert model.embedded == count
    assert torch.equal(anew, first) and torch.equal(first, kept) and kept.dtype == torch.float32


def test_a_request_is_known_before_there_is_a_model(tmp_path):
    cache = TextCache("weights", tmp_path)
    vectors = patch_prompt_embeddings(Counting(), NAMES, TEMPLATES, cache=cache)
    kept = cache.find(prompt_request(NAMES, TEMPLATES, "patches"))
    np.testing.assert_array_equal(kept, vectors.numpy())
    assert cache.find(prompt_request(NAMES, TEMPLATES, "images")) is None
    assert cache.find(prompt_request(NAMES, TEMPLATES[::-1], "patches")) is None


@pytest.mark.parametrize(
    ("fingerprint", "request_"),
    [
        ("others", REQUEST),
        ("weights", replace(REQUEST, texts=("a dog", "the dog", "a cat", "the cow"))),
        ("weights", replace(REQUEST, texts=REQUEST.texts[::-1])),
        ("weights", replace(REQUEST, averaged=4)),
        ("weights", replace(REQUEST, compared_with="patches")),
        ("weights", replace(REQUEST, device="NVIDIA H100")),
    ],
)
def test_anything_else_is_another_request(tmp_path, fingerprint, request_):
    TextCache("weights", tmp_path).keep(REQUEST, VECTORS)
    assert TextCache(fingerprint, tmp_path).find(request_) is None
    np.testing.assert_array_equal(TextCache("weights", tmp_path).find(REQUEST), VECTORS)


def test_other_libraries_and_threads_are_another_request(tmp_path, monkeypatch):
    cache = TextCache("weights", tmp_path)
    cache.keep(REQUEST, VECTORS)
    monkeypatch.setattr("torch.get_num_threads", lambda: 77)
    assert cache.find(REQUEST) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"",
        lambda data: b"\xff" * 64,
        lambda data: data.replace(b"F32", b"I32"),
    ],
    ids=["short", "one bit", "empty", "foreign", "other type"],
)
def test_a_damaged_file_is_ignored_and_written_again(tmp_path, damage):
    cache = TextCache("weights", tmp_path)
    cache.keep(REQUEST, VECTORS)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert cache.find(REQUEST) is None
    cache.keep(REQUEST, VECTORS)
    assert path.read_bytes() == whole


def test_the_file_of_another_request_is_not_taken(tmp_path):
    cache, other = TextCache("weights", tmp_path), replace(REQUEST, compared_with="patches")
    cache.keep(REQUEST, VECTORS)
    (first,) = tmp_path.iterdir()
    cache.keep(other, VECTORS + 1)
    (second,) = set(tmp_path.iterdir()) - {first}
    shutil.copy(first, second)
    assert cache.find(other) is None


def test_what_was_used_longest_ago_goes_first_and_other_files_stay(tmp_path):
    cache = TextCache("weights", tmp_path, limit=4000)
    (tmp_path / "notes.txt").write_text("mine")
    requests = [TextRequest((f"text {number}",), None, "images") for number in range(3)]
    for number, request in enumerate(requests[:2]):
        cache.keep(request, np.zeros((1, 400), np.float32))
        for path in tmp_path.glob("*.texts"):
            os.utime(path, (number, number) if path.stat().st_mtime > 10 else (path.stat().st_mtime,) * 2)
    assert cache.find(requests[0]) is not None  # used now, so the other one is older
    cache.keep(requests[2], np.zeros((1, 400), np.float32))
    assert [cache.find(request) is not None for request in requests] == [True, False, True]
    assert sum(path.stat().st_size for path in tmp_path.glob("*.texts")) <= 4000
    assert (tmp_path / "notes.txt").read_text() == "mine"
    cache.keep(TextRequest(("large",), None, "images"), np.zeros((1, 4000), np.float32))
    assert len(list(tmp_path.glob("*.texts"))) == 2  # what would fill it alone is not kept


def test_a_place_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = TextCache("weights", tmp_path / "file" / "texts")
    cache.keep(REQUEST, VECTORS)
    assert cache.find(REQUEST) is None


def test_two_processes_may_keep_the_same_at_once(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from tests.data.test_text_cache import REQUEST, VECTORS, TextCache\n"
        "for _ in range(100): TextCache('weights', Path(sys.argv[2])).keep(REQUEST, VECTORS)\n"
    )
    command = [sys.executable, "-c", code, str(REPOSITORY), str(tmp_path)]
    for process in [subprocess.Popen(command) for _ in range(2)]:
        assert process.wait() == 0
    np.testing.assert_array_equal(TextCache("weights", tmp_path).find(REQUEST), VECTORS)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_source_is_known_by_its_files_before_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPPY_CACHE", str(tmp_path / "cache"))
    shipped = TextCache.of_source("clippy-ti")
    folder = Path(shutil.copytree(SHIPPED_MODELS / "clippy-ti", tmp_path / "elsewhere"))
    copied = TextCache.of_source(str(folder))
    assert shipped is not None and copied is not None
    assert shipped.fingerprint == copied.fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"name": "other"}))
    assert TextCache.of_source(str(folder)).fingerprint != copied.fingerprint
    assert TextCache.of_source("open_clip:ViT-B-32/openai") is None


def test_weights_that_are_written_over_in_place_are_other_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPPY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("clippy_cli.data.text_cache._FRESH", -1.0)
    monkeypatch.setattr("clippy_cli.data.text_cache._LARGE", 0)
    save_model(nano_model(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    before, stat = TextCache.of_source(str(tmp_path / "model")), weights.stat()
    assert TextCache.of_source(str(tmp_path / "model")).fingerprint == before.fingerprint
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time of change
    assert TextCache.of_source(str(tmp_path / "model")).fingerprint != before.fingerprint
