"""Fixtures that every room uses: a tiny model, and the folder of real data where there is one."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

# Two tests at a time, one thread each (-n 0 for one test at a time); before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parents[1]

# No timing in tests: a busy machine, or coverage, makes a single example slower than hypothesis allows by default.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is kept for later runs is kept here, and not in the user's home."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("CLIPPY_CACHE", raising=False)
        yield folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with VOCdevkit, flickr8k and so on; the test is skipped where there is none."""
    folder = Path(os.environ.get("CLIPPY_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs real data: set CLIPPY_DATA (looked in {folder})")
    return folder


@pytest.fixture
def restored_logger() -> Iterator[None]:
    """The package's logger is afterwards as it was before; for tests that run the command line with other levels."""
    logger = logging.getLogger("clippy_cli")
    level, propagate, handlers = logger.level, logger.propagate, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.propagate, logger.handlers[:] = propagate, handlers


def nano_model():
    """clippy-nano with random weights, the same each time, in evaluation mode."""
    from clippy_cli.model.build import build_model
    from clippy_cli.model.registry import load_architecture

    return build_model(load_architecture("clippy-nano"), seed=1).eval()


@pytest.fixture(scope="session")
def nano():
    """One :func:`nano_model` for all; tests must not change it."""
    return nano_model()
