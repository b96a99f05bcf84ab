"""Masks drawn along the edges of the photo: guided filter, pixel-adaptive refinement, dense CRF."""
