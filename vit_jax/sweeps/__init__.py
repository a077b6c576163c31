"""Sweeps: many runs that answer one question. `results` says what is on disk, `grid` which runs there are, `drive` runs them."""
