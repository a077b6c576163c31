"""VTAB-1k: its 19 tasks, their splits, and lists of ids."""
