"""Texts: 5,000 captions through the package, against the bare text tower on ready-made batches, sorted by length.

Three sides, A/B/C/A/B/C in one process, in CPU seconds, so that other work on the machine hardly matters: the tower on
token ids that are batched already; ``text_embeddings`` from strings, tokenizing included; and batches in the captions'
own order, padded to the longest of each, which the package took before. Then how far vectors and retrieval move.

    OMP_NUM_THREADS=1 python benchmarks/text_speed.py --shards "$HOME/data/flickr8k/train-{00000..00001}.tar"
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from results_file import write_results
from torch import Tensor

from clippy_cli.data.benchmarks.base import RetrievalSet
from clippy_cli.data.benchmarks.captioned import open_captioned
from clippy_cli.data.prompts import text_embeddings
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.store import load_model_directory
from clippy_cli.model.text_batches import TEXT_BATCH, length_batches

COLUMNS = ["side", "CPU seconds, least", "median", "to the bare tower"]


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", required=True, help="a pattern of captioned tar shards")
    parser.add_argument("--captions", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    model = load_model_directory("clippy-ti", device="cpu")
    assert isinstance(model, Clippy)
    images: RetrievalSet = open_captioned(options.shards)
    captions = [text for index in range(len(images)) for text in images.captions(index)][: options.captions]
    ids = model.text.tokenize(captions)
    lengths = (ids != model.text.pad_id).sum(dim=1)  # (K,)
    ready = [ids[rows, : int(lengths[rows].max())] for rows in length_batches(lengths.tolist())]

    @torch.no_grad()
    def bare() -> Tensor:
        return torch.cat([model.text_vectors(batch) for batch in ready])

    @torch.no_grad()
    def in_order() -> Tensor:
        parts = [captions[start : start + TEXT_BATCH] for start in range(0, len(captions), TEXT_BATCH)]
        return torch.cat([model.text_vectors(model.text.tokenize(part)) for part in parts])

    sides: dict[str, Callable[[], Tensor]] = {
        "bare tower, ready-made batches sorted by length": bare,
        "the package": lambda: text_embeddings(model, captions),
        "batches in the captions' order": in_order,
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    vectors: dict[str, Tensor] = {}
    for _ in range(options.rounds):
        for name, side in sides.items():
            begun = time.process_time()
            vectors[name] = side()
            seconds[name].append(time.process_time() - begun)
            print(f"{name}: {seconds[name][-1]:.2f}", flush=True)
    least = {name: min(values) for name, values in seconds.items()}
    base = least["bare tower, ready-made batches sorted by length"]
    rows = [
        [name, f"{least[name]:.2f}", f"{statistics.median(seconds[name]):.2f}", f"{least[name] / base:.2f}"]
        for name in sides
    ]
    ours, theirs = vectors["the package"], vectors["batches in the captions' order"]
    moved = float((ours - theirs).abs().max())
    notes = [f"Vectors of the package and of batches in order differ by at most {moved:.1e} in any value."]
    settings = (
        f"`python benchmarks/text_speed.py --captions {len(captions)}`, {model.name}, {torch.get_num_threads()} "
        f"threads; {float(lengths.float().mean()):.1f} tokens a caption on average, {int(lengths.max())} at most."
    )
    print(*rows, *notes, sep="\n")
    print(f"written to {write_results('text_speed', settings, COLUMNS, rows, torch.device('cpu'), notes)}")


if __name__ == "__main__":
    main()
