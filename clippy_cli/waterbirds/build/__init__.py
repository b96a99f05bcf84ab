"""Objects cut out of photos and pasted on backgrounds that agree with their class or not; Waterbirds is one case."""
