"""What ``clippy waterbirds`` leaves behind: a report, a plot over resolutions."""
