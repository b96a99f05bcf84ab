"""Two readouts of a model, and what they say about birds and backgrounds."""
