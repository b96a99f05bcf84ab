"""Metrics as pure functions: pixels, groups, classes, captions, and how sure a difference of two models is."""
