"""Times a step or an input pipeline, computes the cost of a model, and compares with other libraries."""
