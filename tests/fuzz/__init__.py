"""Damaged files of every kind that clippy reads: mutators, limits, and one seed that makes each file again."""
