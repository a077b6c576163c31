"""Models of the paper. `build` is the entry point; parameter paths are those of the released npz files."""
