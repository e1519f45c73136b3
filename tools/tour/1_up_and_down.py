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
# # 1. Up into noise, and down again
#
# To edit a real picture with a model that makes pictures out of noise, find the noise that would
# make *this* one. DDIM's steps hold no chance, so they can be walked backwards. They lead back,
# too, until guidance comes in. Here is where it breaks, and why.

# %%
import warnings

import torch
from look import BIRDS, curves, opened, row

import ptinv
from ptinv import ddim
from ptinv.core import pti
from ptinv.core.sampling import constant
from ptinv.metrics import psnr

warnings.simplefilter("ignore", ptinv.Remark)
model, path, prompt = ptinv.load(), BIRDS, "two pink birds in the snow"
# Stable Diffusion: model, path, prompt = ptinv.load("sd-v1-4"), "photo.jpg", "what it shows"

# %% [markdown]
# ## The ceiling
# Everything happens in latents, and the VAE's way there and back loses a little. No reconstruction
# is better than this one.

# %%
picture = opened(model, path)
z0 = model.encode(picture)
back = model.decode(z0)
print("a picture of", picture.size, "is a latent of", tuple(z0.shape))
row({"the picture": picture, f"through the VAE\n{psnr(back, picture):.1f} dB": back})

# %% [markdown]
# ## One step
# A latent at a noise level is a mixture of a clean latent and noise,
# $$z = \sqrt{\bar\alpha}\,z_0 + \sqrt{1-\bar\alpha}\,\varepsilon$$
# A DDIM step solves that for $z_0$, with the network's guess of ε, and mixes it with the same ε
# again at another level. Exchange the levels and it runs backwards. With the *same* ε it undoes
# itself:

# %%
schedule = ddim.schedule(20)  # clean end first; each step has a timestep t and two noise levels
step = schedule[9]
z = torch.randn_like(z0)
eps = torch.randn_like(z0)
up = ddim.step(z, eps, step.alpha_to, step.alpha_from)
down = ddim.step(up, eps, step.alpha_from, step.alpha_to)
print(step)
print(f"up and down again, largest difference: {(down - z).abs().max():.0e}")

# %% [markdown]
# So all that can go wrong on the way is ε: on the way up it is asked at the wrong end of the step,
# since the right end is not known yet.
#
# ## The way up
# DDIM inversion, without a prompt. Four lines; the result is the *trajectory* $z^*_0 … z^*_{T}$.

# %%
null = model.embed("")
trajectory = [z0]
for step in schedule:
    eps = model.predict_noise(trajectory[-1], step.t, null)
    trajectory.append(ddim.step(trajectory[-1], eps, step.alpha_to, step.alpha_from))

packaged = pti.ddim_inversion(model, z0, schedule, constant(null, null), 0.0)
assert torch.equal(torch.stack(trajectory), packaged)  # the package's, to the bit
row({f"after {k} steps": model.decode(trajectory[k]) for k in (0, 4, 10, 20)})

# %% [markdown]
# ## The way down
# Guidance ω exaggerates what the prompt adds,
# $$\tilde\varepsilon = \varepsilon_\varnothing + \omega\,
# (\varepsilon_c - \varepsilon_\varnothing)$$
# At 0 there is no prompt, at 1 there is, and at 7.5 prompts are followed. This prompt is *true*: it
# says what the picture shows.


# %%
def walk_down(c, guidance):
    """From the noisy end to the picture; clean end first, as the trajectory is."""
    walk = [trajectory[-1]]
    for step in reversed(schedule):
        z = walk[0]
        both = model.predict_noise(z, step.t, null), model.predict_noise(z, step.t, c)
        eps = ddim.guide(*both, guidance)
        walk.insert(0, ddim.step(z, eps, step.alpha_from, step.alpha_to))
    return walk


walks = {w: walk_down(model.embed(prompt), w) for w in (0, 1, 7.5)}
ends = {w: model.decode(walk[0]) for w, walk in walks.items()}
labelled = {f"guidance {w}\n{psnr(end, picture):.1f} dB": end for w, end in ends.items()}
row({"the picture": picture} | labelled)

# %% [markdown]
# Unguided, the walk comes home, to within a decibel or so of the ceiling. Guided at 7.5 it ends
# elsewhere, though nothing false was said. How far is each walk from the trajectory?


# %%
def distance(a, b):
    return (a - b).square().mean().sqrt().item()


lines = {
    f"ω = {w}": [distance(z, pivot) for z, pivot in zip(walk, trajectory, strict=True)][::-1]
    for w, walk in walks.items()
}
curves(lines, "steps down, from the noise (left) to the picture", "distance to the trajectory")

# %% [markdown]
# ## Why
# At ω = 1 the walk uses another ε than the inversion did, but a near one. At 7.5 the difference is
# 7.5 times as large, *and* the next step starts from a latent that the inversion never visited.
# Start every step on the trajectory instead, and see what a step by itself is guilty of:

# %%
c = model.embed(prompt)
missed = {w: [] for w in walks}
for step in schedule:
    z = trajectory[step.k]
    both = model.predict_noise(z, step.t, null), model.predict_noise(z, step.t, c)
    for w, alone in missed.items():
        landed = ddim.step(z, ddim.guide(*both, w), step.alpha_from, step.alpha_to)
        alone.append(distance(landed, trajectory[step.k - 1]))

for w, alone in missed.items():
    walked = distance(walks[w][0], z0)
    print(f"ω = {w:<3}  a step misses by {sum(alone) / len(alone):.3f}, the walk by {walked:.3f}")

# %% [markdown]
# ## What people do about it
# *Start lower*: walk up only part of the way (`encode_ratio`; the Hugging Face course's
# `start_step`). The walk misses less, since it is shorter, and an edit can change less for the same
# reason.

# %%
for ratio in (0.25, 0.5, 0.75, 1.0):
    how = dict(steps=20, encode_ratio=ratio, guidance=7.5)
    found = ptinv.reconstruct(model, picture, prompt, "ddim", **how)
    print(f"up {ratio:4.0%} of the way and down at ω = 7.5: {psnr(found, picture):.1f} dB")

# %% [markdown]
# *Tune something* so that the guided step lands on the trajectory. Null-Text Inversion tunes ∅,
# Prompt Tuning Inversion tunes the prompt: the next notebook.
