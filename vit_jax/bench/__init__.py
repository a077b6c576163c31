"""Times a step or an input pipeline, counts what a model costs, and compares with other libraries; runs nothing else."""
