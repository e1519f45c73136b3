"""Parts of `tools/evaluate.py`: a runner, data, methods, metrics and tables."""
