"""Object or background? The Waterbirds set, how it is built, measured, analysed and reported."""
