"""Evaluators: classification, its full scorecard, and few-shot. `base` defines an evaluator; `build.EVALUATORS` lists them."""
