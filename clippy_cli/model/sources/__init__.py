"""Models of other makers behind the package's one face: open_clip's, transformers' and timm's."""
