"""How embeddings of objects move with the background."""
