"""Images a second of a training step with and without token sub-sampling, side by side in one process.

    python benchmarks/token_subsampling.py                       # the paper's image tower at 448 pixels, bf16
    python benchmarks/token_subsampling.py --architecture clippy-nano --resolution 64 --batch-size 16 --precision fp32

One step is what clippy train does between two batches: forward of both towers, contrastive loss, backward, AdamW. The
text tower is CLIP's, which needs no download; captions are random token ids. The two settings take turns, so that a
drifting clock meets both, and medians are compared. The table is printed and written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from results_file import write_results
from rich.console import Console
from rich.table import Table

from clippy_cli.model.build import build_model
from clippy_cli.model.clippy import Clippy
from clippy_cli.model.device import resolve_device
from clippy_cli.model.registry import load_architecture
from clippy_cli.model.sampling import draw_keep_indices, num_kept
from clippy_cli.training.forward import autocast
from clippy_cli.training.loss import image_text_loss

WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="clippy-b16")
    parser.add_argument("--resolution", type=int, default=448)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--drop-rate", type=float, default=0.8)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each setting")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    device = resolve_device(options.device)
    step = Step(options.architecture, options.resolution, options.batch_size, options.precision, device)
    rates = (0.0, options.drop_rate)
    seconds: dict[float, list[float]] = {rate: [] for rate in rates}
    for number in range(WARM_UP + options.steps):
        for rate in rates:
            taken = step(rate)
            if number >= WARM_UP:
                seconds[rate].append(taken)
    medians = [statistics.median(seconds[rate]) for rate in rates]
    rows = [
        (f"{rate:.0%}", str(num_kept(step.patches, rate)), f"{options.batch_size / median:.1f}", f"{1000 * median:.1f}")
        for rate, median in zip(rates, medians, strict=True)
    ]
    columns = ("tokens dropped", "patches kept", "images/s", "median ms a step")
    table = Table(*columns, title=f"{options.architecture} at {options.resolution}, {options.precision}, {device}")
    for row in rows:
        table.add_row(*row)
    ratio = f"ratio {medians[0] / medians[1]:.2f}"
    console = Console()
    console.print(table)
    console.print(ratio)
    settings = ", ".join(f"{name} {value}" for name, value in vars(options).items() if name != "device")
    console.print(f"written to {write_results('token_subsampling', f'{settings}. {ratio}.', columns, rows, device)}")


class Step:
    """One training step on fixed random images and captions; calling it gives its seconds."""

    def __init__(self, architecture: str, resolution: int, batch: int, precision: str, device: torch.device) -> None:
        text = load_architecture("clip-b16").text
        config = load_architecture(architecture)
        if config.text.kind != "open_clip":
            config = config.model_copy(update={"text": text})
        self.model: Clippy = build_model(config).to(device).train()
        h, w = self.model.image.grid_size(resolution, resolution)
        self.patches, self.device, self.precision = h * w, device, precision
        self.images = torch.randn(batch, 3, resolution, resolution, device=device)
        encoder = config.text.encoder
        self.ids = torch.randint(1, encoder["vocab_size"], (batch, config.text.context_length), device=device)
        fused = device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=fused)

    def __call__(self, drop_rate: float) -> float:
        started = self._clock()
        keep = draw_keep_indices(len(self.images), self.patches, drop_rate, device=self.device) if drop_rate else None
        with autocast(self.precision, self.device):
            tokens = self.model.image_tokens(self.images, keep)
            texts = self.model.text_vectors(self.ids)
        loss = image_text_loss(self.model, tokens, texts)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        return self._clock() - started

    def _clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


if __name__ == "__main__":
    main()
