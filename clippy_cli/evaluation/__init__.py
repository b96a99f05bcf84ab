"""Models x sets x protocol -> results: metrics/ are pure functions, tasks/ one file per task, protocols/ data files."""
