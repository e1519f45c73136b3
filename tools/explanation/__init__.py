"""What `explain.py` is made of: the measurements, the equations, the curves, and the page."""
