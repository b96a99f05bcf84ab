"""Metrics as pure functions, and benchmarks x protocol -> result."""
