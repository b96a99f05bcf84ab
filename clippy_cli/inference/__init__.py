"""What patch embeddings are good for: segment, group and classify images."""
