"""clippy: where things are, learnt from image-caption pairs alone."""

__version__ = "0.1.0"
