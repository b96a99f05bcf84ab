"""Models in the formats of other programs, each checked against the model that it was made from."""
