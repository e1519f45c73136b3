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
# # 2. Prompt tuning
#
# Guided sampling leaves the trajectory. [Prompt Tuning Inversion](https://arxiv.org/abs/2305.04441)
# gives every step an embedding $c_t$ of its own, tuned so that the guided step lands near where it
# should. Here is Algorithm 1, whole, and then the edit: a mixture of $c_t$ and the prompt's $c^*$.

# %%
import warnings

import torch
from look import BIRDS, curves, opened, row

import ptinv
from ptinv.core import ddim, pti, sampling
from ptinv.metrics import psnr

warnings.simplefilter("ignore", ptinv.Remark)
model, path, prompt = ptinv.load(), BIRDS, "two pink dogs in the snow"
# Stable Diffusion: model, path, prompt = ptinv.load("sd-v1-4"), "photo.jpg", "what it should show"

picture = opened(model, path)
null, target = model.embed(""), model.embed(prompt)  # ∅ and c*
schedule = ddim.schedule(20, encode_ratio=0.8)  # 16 of 20 steps
trajectory = pti.ddim_inversion(
    model, model.encode(picture), schedule, sampling.constant(null, null), 0.0
)

# %% [markdown]
# ## Algorithm 1
# The prompt names what the picture *should* show; only the trajectory says what it does show.
# For t = T, …, 1: take the guided step from where we are, compare with $z^*_{t-1}$, and move $c$
# downhill. The networks stay as they are.


# %%
def guided_step(z, step, eps_null, c, guidance):
    eps = ddim.guide(eps_null, model.predict_noise(z, step.t, c), guidance)  # Eq. 5
    return ddim.step(z, eps, step.alpha_from, step.alpha_to)  # Eq. 4


def algorithm_1(trajectory, c, guidance=7.5, lr=0.1, inner_steps=1):
    z, tuned = trajectory[-1], []
    for step in reversed(schedule):
        pivot = trajectory[step.k - 1]  # where this step should land
        eps_null = model.predict_noise(z, step.t, null)
        c = c.clone().requires_grad_()  # c_t starts at c_{t+1}
        adam = torch.optim.Adam([c], lr=lr)
        for _ in range(inner_steps):
            loss = (guided_step(z, step, eps_null, c, guidance) - pivot).square().mean()
            (c.grad,) = torch.autograd.grad(loss, c)  # Eqs. 7, 8
            adam.step()
        c = c.detach()
        z = guided_step(z, step, eps_null, c, guidance)  # the next step starts where this landed
        tuned.insert(0, c)
    return torch.stack(tuned)


tuned = algorithm_1(trajectory, target)

# %% [markdown]
# The same as the package's, to the bit:

# %%
inversion = ptinv.invert(model, picture, prompt, method="pti", steps=20, encode_ratio=0.8)
assert torch.equal(trajectory, inversion.trajectory)
assert torch.equal(tuned, inversion.embeddings)
print(f"{tuned.numel():,} numbers, all equal")

# %% [markdown]
# ## What it bought
# Both walks are guided at ω = 7.5, under the same wrong prompt. One iteration a step keeps the
# tuned one by the trajectory.


# %%
def walk(condition, guidance=7.5):
    """The latents of a way down, noisy end first."""
    steps = sampling.sample(model, trajectory[-1], schedule[::-1], condition, guidance)
    return [trajectory[-1], *(step.z for step in steps)]


def distances(latents):
    pairs = zip(latents, reversed(trajectory), strict=True)
    return [(z - pivot).square().mean().sqrt().item() for z, pivot in pairs]


untuned = walk(sampling.constant(null, target))
home = walk(pti.interpolate(null, tuned, target, eta=0.0))
curves(
    {"untuned": distances(untuned), "tuned": distances(home)},
    "steps down, from the noise (left) to the picture",
    "distance to the trajectory",
)

# %%
ends = {
    "the VAE alone": model.decode(trajectory[0]),
    "guided, untuned": model.decode(untuned[-1]),
    "guided, tuned": model.decode(home[-1]),
}
labelled = {f"{name}\n{psnr(end, picture):.1f} dB": end for name, end in ends.items()}
row({"the picture": picture} | labelled)

# %% [markdown]
# Sampled under "dogs" at ω = 7.5, the picture comes back, birds and all: whatever the prompt gets
# wrong is mended in $c_t$.
#
# With one iteration, Adam's step is $\beta\,g/(|g|+10^{-8})$: nearly a *sign* step. Wherever the
# gradient is well above $10^{-8}$, its sign alone counts, and the number moves by β.

# %%
moved = (tuned[-1] - target).abs()
print(f"of c_T's numbers, {(moved > 0.09).float().mean():.0%} have moved by more than 0.9 β")

# %% [markdown]
# ## The edit: Eq. 9
# $\eta\,c^* + (1-\eta)\,c_t$ at every step: η = 0 is the picture, η = 1 the prompt alone. One
# tuning serves every η.


# %%
def edit(eta):
    return model.decode(walk(pti.interpolate(null, tuned, target, eta))[-1])


row({f"eta = {eta}": edit(eta) for eta in (0.0, 0.3, 0.6, 0.9)})

# %% [markdown]
# That is the method. `ptinv.edit` adds where the edit may show, which is the next notebook; without
# a mask it is what stands above:

# %%
packaged = ptinv.edit(model, inversion, prompt, eta=0.9, mask=None)
assert packaged.tobytes() == edit(0.9).tobytes()
print("the same picture, to the byte")

# %% [markdown]
# **Try it:** more iterations at a smaller rate, `inner_steps=5, lr=0.01`, the paper's other choice.
# Is the picture nearer? Is the edit better? And tune ∅ instead of c, under a text of what
# the picture shows, inverted at ω = 1: few lines change, and it is Null-Text Inversion.
