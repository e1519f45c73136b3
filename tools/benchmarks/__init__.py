"""Parts of `tools/benchmark.py`: what is measured, each with its command, and how."""
