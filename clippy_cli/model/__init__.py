"""The core model package: towers, pooling, token sub-sampling, loading. Importing it loads nothing heavy."""

DEFAULT_MODEL = "clippy-ti"
