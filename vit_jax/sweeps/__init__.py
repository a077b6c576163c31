"""Sweeps: many runs that answer one question. `grid` lists the runs, `drive` starts them, `results` defines their files."""
