"""Evaluators: classification and few-shot. `base` says what an evaluator is; `EVALUATORS` in `build` lists them."""
