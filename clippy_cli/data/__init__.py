"""Everything between files on disk and pixels or texts: images, labels, prompts, caption sources, benchmarks."""
