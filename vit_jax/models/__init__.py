"""Models of the paper. `build.build_model` is the door; parameter paths are those of the released npz files."""
