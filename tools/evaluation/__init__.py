"""What `tools/evaluate.py` is made of: a runner, data, methods, metrics and tables."""
