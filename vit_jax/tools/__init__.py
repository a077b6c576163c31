"""Programs over finished or planned runs: curves today; each module says which script calls it."""
