"""Parts of `explain.py`: the measurements, the equations, the curves, and the page."""
