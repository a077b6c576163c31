"""Evaluators: classification, its full scorecard, and few-shot. `base` says what one is; `EVALUATORS` in `build` lists them."""
