"""Parts of `tools/compare_with_authors.py`: the authors' code, run on this project's networks."""
