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
# # 3. Where an edit shows
#
# "Two pink dogs in the snow" says nothing of mountains, so they should stay. Two sources know where
# the edit belongs: the model's attention to the words, and the difference that two texts make.

# %%
import warnings

import torch
from look import BIRDS, heat, masked, opened, row

import ptinv
from ptinv.core.pti import blend
from ptinv.metrics import psnr

warnings.simplefilter("ignore", ptinv.Remark)
model, path, prompt = ptinv.load(), BIRDS, "two pink dogs in the snow"
shown = "two pink birds in the snow"
# Stable Diffusion: model, path = ptinv.load("sd-v1-4"), "photo.jpg"; and texts of your own

picture = opened(model, path)
inversion = ptinv.invert(model, picture, prompt, method="pti", steps=20)

# %% [markdown]
# ## Attention
# In cross-attention every place of the map shares out its attention among the prompt's tokens.
# Read by token, that is a map of the picture for each word. Each is drawn relative to its maximum,
# so a weak map looks as bright as a strong one.

# %%
maps = ptinv.attention_maps(model, inversion, shown)
found = {word: maps.of(word) for word in ("pink", "birds", "snow")}
labelled = {f"{word}\nmax {m.max():.1%}": heat(picture, m) for word, m in found.items()}
row({"the picture": picture} | labelled)

# %% [markdown]
# ## From attention to a mask
# Prompt-to-Prompt's rule: while the edit is sampled, add up the maps of the words that it is about,
# and let it in where the sum is more than 0.3 of its maximum. Early maps are vague, so the first
# fifth of the steps goes without a mask.

# %%
steps = list(ptinv.steps(model, inversion, prompt, focus="dogs"))
row({f"step {steps[i].k}": masked(picture, steps[i].mask) for i in (0, 3, 7, 15)})

# %% [markdown]
# After each step the latent is *blended*: inside the mask it is the edit's, outside it is the
# trajectory's, $z \leftarrow M z + (1-M)\,z^*$. That is one line, and it is exact:

# %%
last, z_picture = steps[-1], inversion.trajectory[0]
outside = (last.mask == 0).expand_as(last.z)
assert torch.equal(last.z[outside], z_picture[outside])
assert torch.equal(blend(last, last.mask, z_picture).z, last.z)  # once more changes nothing
print(f"{outside.float().mean():.0%} of the latent is the picture's own")

# %% [markdown]
# ## Difference
# DiffEdit's way: noise the picture half way, and let the network predict that noise under two
# texts, what the picture shows and what it should show. Where the predictions disagree, the edit
# belongs. Writing it is the exercise of the next notebook.

# %%
differ = ptinv.result(model, inversion, prompt, "diffedit", source=shown)
row({"by attention": masked(picture, last.mask), "by difference": masked(picture, differ.mask)})

# %% [markdown]
# ## Joined
# Masks join with `+` (either), `*` (both) and `~` (not), and any mask goes with any method. The
# sky should not change, so that is where to measure. The VAE alone sets about the ceiling.

# %%
masks = {
    "no mask": dict(mask=None),
    "attention": {},
    "difference": dict(mask_from="difference", mask_threshold=0.5),
    "both": dict(mask_from="attention*difference", mask_threshold=0.4),
}
given = dict(focus="dogs", source=shown)
made = {name: ptinv.edit(model, inversion, prompt, **given, **how) for name, how in masks.items()}


def sky(edit):
    upper = 0, 0, picture.width, picture.height // 3
    return f"{psnr(edit.crop(upper), picture.crop(upper)):.1f} dB"


print("the sky through the VAE alone:", sky(model.decode(z_picture)))
row({f"{name}\n{sky(edit)}": edit for name, edit in made.items()})

# %% [markdown]
# `paste_back` goes around the VAE: outside the mask and its soft edge, the pixels are the
# picture's own, to the byte.

# %%
pasted = ptinv.edit(model, inversion, prompt, paste_back=True, **given)
print("the sky, pasted back:", sky(pasted))

# %% [markdown]
# **Try it:** another place, "two pink birds on the beach", with `focus="beach"`; or a mask of your
# own, a picture that is white where to edit: `mask="mask.png"`.
