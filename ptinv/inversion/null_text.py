"""Null-Text Inversion (Mokady et al., arXiv 2211.09794): tunes ∅_t, where PTI tunes c_t.

The pivot is inverted with a text of the picture (ω = 1), and guided sampling with that same text
is led back to it through the unconditional side: the text stays the text, so that it can be edited
by Prompt-to-Prompt, and whatever guidance adds to it is taken back by ∅_t.

Adam's learning rate falls by a hundredth of itself with each step, and a step's tuning ends early
once its loss is below 10⁻⁵ (1 + 2i), as in the authors' code. Without both, and with an
unconditional pivot, it is the rival of PTI's Tables 2 and 3.
"""

from torch import Tensor

from .. import ddim
from ..model import StableDiffusion
from ..sampling import Progress, silent
from .prompt_tuning import Tuning, tune


def tune_null(
    model: StableDiffusion,
    trajectory: Tensor,
    rungs: list[ddim.Rung],
    source: Tensor,
    inner_steps: int = 10,
    lr: float = 1e-2,
    guidance: float = 7.5,
    progress: Progress = silent,
    lr_decay: float = 1e-2,
    stop_below: float = 1e-5,
) -> Tuning:
    """∅_1 … ∅_T' for every step of the trajectory z*_0 … z*_T', (T'+1, b, c, h, w).

    source: the context of the picture's text, (b or 1, 77, d). ∅_T' begins at the empty prompt, and
    each later one where the last one ended. inner_steps, lr, lr_decay, stop_below: see `tune`.
    Raises FloatingPointError if the numbers are not finite.
    """
    null = model.embed("")
    return tune(
        model,
        trajectory,
        rungs,
        side="null",
        start=null,
        other=source,
        inner_steps=inner_steps,
        lr=lr,
        lr_decay=lr_decay,
        stop_below=stop_below,
        guidance=guidance,
        progress=progress,
    )
