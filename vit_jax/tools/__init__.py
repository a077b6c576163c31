"""Programs around runs, before and after them: plans, curves, exports. Each module says who calls it."""
