"""Comparisons with the authors' own code, a file a family of methods."""
