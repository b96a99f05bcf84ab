"""Results as files and pictures: colours, masks, overlays, JSON."""
