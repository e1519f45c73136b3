"""From a picture to a trajectory that sampling can follow back: one page an inversion."""
