"""Millions of photos: each input shard becomes one result file, by any number of processes, whoever dies when."""
