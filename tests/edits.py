"""Short edits by the methods' table, as latents: decoding would hide small differences. And how
pictures are compared."""

import numpy as np
from small import PROMPT

import ptinv
from ptinv.methods.table import find

SOURCE = "a red car on the grass"
STEPS = 6


def result(model, picture, method, prompt=PROMPT, **options):
    """An edit of six steps, with a source text for the methods that need one."""
    if not isinstance(picture, ptinv.Inversion):
        source = {"source": SOURCE} if find(method).needs_source else {}
        options = {"steps": STEPS, **source, **options}
    return ptinv.result(model, picture, prompt, method, **options)


def latent(*args, **options):
    """z_0 of such an edit, (1, c, h, w)."""
    return result(*args, **options).latent


def both_latents(model, picture, method, prompt=PROMPT, **options):
    """z_0 of the source's branch and of the target's, (2, c, h, w)."""
    options = {"steps": STEPS, "source": SOURCE, **options}
    *_, step = ptinv.steps(model, picture, prompt, method, **options)
    return step.z


def same(a, b):
    """True if two pictures are of one kind and size, and the same to the byte."""
    return a.mode == b.mode and a.size == b.size and a.tobytes() == b.tobytes()


def largest_difference(a, b):
    """The largest difference of two pictures, of 255 levels."""
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max()
