"""Where a figure comes from: model, libraries, machine."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata

import torch

from clippy_cli import __version__
from clippy_cli.model.base import VisionLanguageModel

_LIBRARIES = ("torch", "timm", "open-clip-torch", "transformers", "numpy", "scipy", "scikit-learn", "pillow")
_SIDE = 4  # patches


def model_fingerprint(model: VisionLanguageModel) -> str:
    """16 hexadecimal digits of a model's answers to a fixed image and two fixed texts: other weights, other digits.

    A model that reads no texts answers to the image alone.
    """
    side = _SIDE * model.preprocess.patch_size
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, 3, side, side), generator=generator, dtype=torch.uint8)
    answers = [model.embed_patches(model.preprocess.normalize(image.to(model.device)))]
    if model.reads_texts:
        answers.append(model.embed_texts(["a photo of a dog", "grass"]))
    digest = hashlib.sha256(model.name.encode())
    for answer in answers:
        digest.update(answer.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def weights_fingerprint(model: VisionLanguageModel) -> str:
    """16 hexadecimal digits of a model's weights and settings, the same on every device.

    Where it shows no weights, its answers stand for them (:func:`model_fingerprint`).
    """
    if not isinstance(model, torch.nn.Module):
        return model_fingerprint(model)
    facts = (model.name, model.preprocess, model.defaults, getattr(model, "config", None))
    digest = hashlib.sha256(repr(facts).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def library_versions() -> dict[str, str]:
    """clippy, Python and the libraries that make the figures."""
    versions = {"clippy": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def describe_device(device: torch.device) -> str:
    """``cuda: NVIDIA H100``, ``cpu: x86_64, 2 threads``."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}, {torch.get_num_threads()} threads"
