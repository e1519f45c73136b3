# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 4. A method of your own
#
# Every method here is the same walk down the same trajectory. They differ in a few cells of one
# table, and a cell is the equation itself. So a method of your own is a row: take one that is near,
# and replace what is yours.

# %%
import warnings
from dataclasses import replace

import torch
from look import BIRDS, masked, opened, row

import ptinv
from ptinv import METHODS, Stage
from ptinv.core import ddim

warnings.simplefilter("ignore", ptinv.Remark)
model, path, prompt = ptinv.load(), BIRDS, "two pink dogs in the snow"
shown = "two pink birds in the snow"
# Stable Diffusion: model, path = ptinv.load("sd-v1-4"), "photo.jpg"; and texts of your own

picture = opened(model, path)
inversion = ptinv.invert(model, picture, method="ddim-global", steps=20, encode_ratio=0.8)

# %% [markdown]
# ## A cell: guidance
# `guide` makes one ε of two. Guidance makes ε *longer*; fast.ai's lesson 11 shows a student's idea
# of scaling it back, so that only its direction changes. A cell is a function of the edit `e`, and
# returns what the walk calls.


# %%
def same_length(eps_null, eps_cond, guidance):
    eps = ddim.guide(eps_null, eps_cond, guidance)
    return eps * (eps_null.norm() / eps.norm())


rescaled = replace(METHODS["ddim-edit"], title="length kept", guide=lambda e: same_length)
usual, kept = (ptinv.edit(model, inversion, prompt, m) for m in ("ddim-edit", rescaled))
row({"the picture": picture, "ddim-edit": usual, "length kept": kept})

# %% [markdown]
# ## A cell: after the step
# `after` returns the latent that a step ends in. This one lets the edit in more and more on the way
# down: coarse things stay the picture's, details are the prompt's. `e.pivot(step)` is the
# trajectory's latent there, and `e.schedule` has all steps.

# %%
fading = replace(
    METHODS["ddim-global"],
    title="let in little by little",
    after=lambda e, step: torch.lerp(e.pivot(step), step.z, 1 - step.k / (len(e.schedule) + 1)),
)
usual, faded = (ptinv.edit(model, inversion, prompt, m) for m in ("ddim-global", fading))
row({"the picture": picture, "ddim-global": usual, "little by little": faded})

# %% [markdown]
# ## Exercise: write DiffEdit
# The homework of fast.ai's lesson 11. The
# [paper](https://arxiv.org/abs/2210.11427) in three steps:
#
# 1. *A mask.* Noise the picture's latent half way, with ten noises. Predict each under two texts:
#    what the picture shows, and what it should show. Add up the absolute differences over noises
#    and channels, divide by three times their mean (as its code does), cut at 1, compare with 0.5.
# 2. *Up*: DDIM inversion without a prompt. You have it: `inversion`.
# 3. *Down* under the prompt; after each step, all outside the mask is the trajectory's.
#
# You need `e.z0`; `e.source` and `e.target`, the embeddings of both texts; `e.noise(stream=2)(i)`,
# the i-th noise; `ddim.schedule(20)[9]`, half way; `ddim.add_noise`; `e.model.predict_noise`.
#
# A *stage* makes tensors before the walk, one for each step, and names the settings that it uses.
# `after` finds them in `e.made`. Two places are yours.


# %%
def difference(e):
    """The mask, (1, 1, h, w): zeros and ones."""
    return torch.ones_like(e.z0[:, :1])  # yours comes here


def diffedit(difference, after):
    def make(e, progress):
        return {"masks": difference(e).expand(len(e.schedule), 1, -1, -1)[:, None]}

    def texts(settings, prompt):  # besides the settings, the mask depends on the prompt
        return {"prompt": prompt or ""}

    stage = Stage("where two texts differ", ("steps", "source", "seed"), make, texts)
    return replace(METHODS["ddim-global"], title="my DiffEdit", extra=stage, after=after)


yours = diffedit(difference, after=lambda e, step: step.z)  # and yours comes here

# %%
theirs = ptinv.result(model, inversion, prompt, "diffedit", source=shown)


def is_diffedit(method):
    """True if its edit is the package's, to the byte."""
    mine = ptinv.edit(model, inversion, prompt, method, source=shown)
    return mine.tobytes() == theirs.picture.tobytes()


print("yours is DiffEdit:", is_diffedit(yours))
row({"the picture": picture, "the mask to be": masked(picture, theirs.mask)})

# %% [markdown]
# <br><br><br><br><br><br><br><br>
#
# ## A solution
# Blending is `torch.lerp`, exact where the mask is 0 and where it is 1.


# %%
def solved(e, draws=10):
    half, total = ddim.schedule(20)[9], torch.zeros_like(e.z0[:, :1])
    for i in range(draws):
        z = ddim.add_noise(e.z0, e.noise(stream=2)(i).to(e.z0), half.alpha_from)
        there, here = (e.model.predict_noise(z, half.t, text) for text in (e.source, e.target))
        total += (here - there).abs().sum(dim=1, keepdim=True)
    return ((total / (3 * total.mean())).clamp(max=1) > 0.5).float()


solution = diffedit(
    solved,
    after=lambda e, step: torch.lerp(e.pivot(step), step.z, e.made["masks"][step.k - 1]),
)
assert is_diffedit(solution)
found = ptinv.edit(model, inversion, prompt, solution, source=shown)
row({"the picture": picture, "diffedit": theirs.picture, "solved": found})

# %% [markdown]
# **Further.** The other cells: a source sampled beside the target (`source_condition`), attention
# that both share (`control`). All rows that there are stand in
# [`ptinv/methods/table.py`](../../ptinv/methods/table.py); MasaCtrl's mutual self-attention is
# eight lines in [`tests/test_research.py`](../../tests/test_research.py).
