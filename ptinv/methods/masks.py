"""Masks: where an edit may show, evaluated at each step. One vocabulary, whatever one is made from:

    attention    the maps of the focus words so far: Prompt-to-Prompt's local blending, where there
                 is a source branch with its own words, too
    difference   where the noise predicted for two texts differs (DiffEdit), the same at every step
    file         the user's own picture, the same at every step

    a+b  union      a*b  intersection      ~a  inversion

A mask is (b or 1, 1, h, w) over the latent: zeros and ones, numbers in between where it was
softened. Outside the model it is a picture, white where to edit.
"""

from collections.abc import Mapping
from functools import reduce

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageChops
from torch import Tensor

from ..core import ddim
from ..core.pictures import Picture, read_colours
from ..errors import Doubt, InputError, PictureError, remark
from .controls import AttentionStore
from .edit import Edit

BEGIN = 0.2  # the share of the steps after which an attention mask is trusted


def fixed_masks(edit: Edit) -> dict[str, Tensor]:
    """The masks that are the same at every step, by name. Raises InputError without a picture."""
    settings, masks = edit.settings, {}
    if "attention" in settings.mask_names and not edit.words.focus:
        masks["attention"] = torch.ones(1, 1, *edit.latent_size, device=edit.model.device)
    if "file" in settings.mask_names:
        masks["file"] = to_mask(settings.mask, edit.latent_size).to(edit.model.device)
    if "difference" in settings.mask_names:
        if edit.z0 is None:
            raise InputError("there is no picture yet; a mask of differences needs one")
        masks["difference"] = (noise_difference(edit) > settings.mask_threshold).float()
    return masks


def mask_at(edit: Edit, fixed: dict[str, Tensor], store: AttentionStore, k: int) -> Tensor | None:
    """The mask after step k, from the fixed masks and the attention recorded so far. None where
    nothing masks the edit, and on the first fifth of the steps, rounded (the original cuts off)."""
    settings, steps, masks = edit.settings, len(edit.schedule), fixed
    if edit.words.focus:
        if steps - k + 1 <= round(BEGIN * steps):
            return None
        masks = fixed | {"attention": words_mask(edit, store)}
    elif settings.mask_names <= {"attention"}:  # no word is followed, and nothing else masks
        return None
    mask = combined(settings.mask_expression, masks)
    return softened(mask, settings.mask_dilate, settings.mask_feather)


def words_mask(edit: Edit, store: AttentionStore) -> Tensor:
    """The mask of every branch's focus words, without the places of the words to subtract."""
    settings, words = edit.settings, edit.words
    how = edit.latent_size, settings.mask_threshold, settings.mask_relative_to == "object"

    def of(branch: str, tokens: list[int], widened: bool) -> Tensor:
        return attention_mask(store.maps(branch)[:, tokens].sum(dim=1), *how, widened)

    followed = [of(*one, widened=True) for one in words.focus.items()]
    left_out = [1 - of(*one, widened=False) for one in words.subtracted.items()]
    return reduce(torch.minimum, left_out, reduce(torch.maximum, followed))


def attention_mask(
    maps: Tensor, size: tuple[int, int], threshold: float, each_object=False, widened=True
) -> Tensor:
    """Maps of attention (b, h, w) -> a mask of zeros and ones (b, 1, height, width).

    Prompt-to-Prompt's rule: 3×3 maxima if `widened`, to the latent's size (bilinearly, where the
    reference repeats cells), relative to the largest value. The strongest of several objects then
    decides for all (the paper's Fig. 7). With `each_object` a place is compared with the strongest
    one within an eighth of the map to each side, or the threshold where that is higher.
    """
    maps = dilated(maps[:, None], 1 if widened else 0)
    maps = F.interpolate(maps, size=size, mode="bilinear")
    maps = maps / maps.amax(dim=(2, 3), keepdim=True)
    if each_object:
        reach = max(1, round(min(size) / 8))
        maps = maps / dilated(maps, reach).clamp(min=threshold)
    return (maps > threshold).float()


@torch.no_grad()
def noise_difference(edit: Edit, chunk: int = 8) -> Tensor:
    """DiffEdit's map (arXiv 2210.11427, §3.2): how much two texts disagree about the noise.

    The edit's latent z_0 is noised half the way with `mask_draws` noises; the absolute difference
    of the predictions for its source text and its prompt is averaged over noises and channels,
    clamped at `mask_clamp` times the mean, and scaled to [0, 1]: (1, 1, h, w). Guidance would
    multiply all differences alike, and is left out. chunk: rows that go through the UNet at once.
    """
    z0, noise, steps = edit.z0, edit.noise(stream=2), edit.settings.steps
    timestep = ddim.schedule(steps)[max(steps // 2, 1) - 1]
    total = torch.zeros_like(z0[:, :1])
    noises = torch.cat([noise(i) for i in range(edit.settings.mask_draws)]).to(z0)
    for some in noises.split(max(chunk // 2, 1)):
        z = ddim.add_noise(z0, some, timestep.alpha_from)
        texts = torch.cat([text.expand(len(z), -1, -1) for text in (edit.source, edit.target)])
        there, here = edit.model.predict_noise(torch.cat([z, z]), timestep.t, texts).chunk(2)
        total += (here - there).abs().sum(dim=(0, 1), keepdim=True)
    limit = (edit.settings.mask_clamp * total.mean()).clamp(min=1e-12)
    return (total / limit).clamp(max=1)


def combined(expression: str, masks: Mapping[str, Tensor]) -> Tensor:
    """The mask of an expression such as "attention*~file"; `~` binds before `*` before `+`."""
    for sign, join in (("+", torch.maximum), ("*", torch.minimum)):
        if sign in expression:
            return reduce(join, (combined(part, masks) for part in expression.split(sign)))
    mask = masks[expression.strip().lstrip("~ ")]
    return 1 - mask if expression.count("~") % 2 else mask


def softened(mask: Tensor, dilate: int, feather: int) -> Tensor:
    """(b, 1, h, w) grown by `dilate` cells, with an edge that falls off over 2·`feather` outside.
    It is grown by both, then averaged over a square that reaches `feather` cells to each side."""
    grown = F.pad(dilated(mask, dilate + feather), (feather,) * 4, mode="replicate")
    return F.avg_pool2d(grown, 2 * feather + 1, stride=1)


def dilated(mask: Tensor, cells: int) -> Tensor:
    """(b, 1, h, w) grown by so many cells in all eight directions."""
    return F.max_pool2d(mask, 2 * cells + 1, stride=1, padding=cells)


def painted(image: Picture) -> Image.Image:
    """The picture of a mask as RGB, white where to edit: where it is transparent, what is painted,
    or if that is nothing, what is erased. Zeros and ones are black and white."""
    mask = read_colours(image)
    if mask.mode == "RGBA":
        alpha = mask.getchannel("A")
        covered = ImageChops.multiply(mask.convert("L"), alpha)
        mask = (covered if covered.getbbox() else ImageChops.invert(alpha)).convert("RGB")
    largest = max(high for _, high in mask.getextrema())
    return mask.point(lambda level: 255 * level) if largest == 1 else mask


def check_mask(mask: Image.Image, size: tuple[int, int] | None) -> None:
    """Raises PictureError (an InputError) unless a mask picture selects something and is of the
    picture's (width, height) `size`, if there is a picture. Doubts one that selects everything."""
    if size is not None and mask.size != size:
        own, wanted = (f"{width} × {height}" for width, height in (mask.size, size))
        wrong = f"the mask is {own} pixels but the picture is {wanted}"
        raise PictureError(f"{wrong}; draw it over the picture")
    low, high = mask.convert("L").getextrema()
    if high == 0:
        raise PictureError("the mask is all black and selects nothing; paint white what to edit")
    if low == 255:
        remark("the mask is all white and selects everything", Doubt)


def to_mask(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """A mask picture averaged over the latent's `size` (h, w): (1, 1, h, w), float32 in [0, 1]."""
    # Mode F: 8 bits would round a small selection in a large cell to nothing.
    grey = image.convert("L").convert("F")
    shares = grey.resize(size[::-1], Image.Resampling.BOX)
    return rearrange(torch.from_numpy(np.array(shares)) / 255, "h w -> 1 1 h w").clamp(0, 1)


def spread(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask over the latent (1, 1, h, w) -> over a picture's pixels (height, width). Grown by a
    cell, as decoding spreads each that far, with a soft edge; 0 is 0 beyond that."""
    pixels = F.interpolate(dilated(mask.float().cpu(), 1), size=size[::-1], mode="bilinear")
    return rearrange(pixels, "1 1 h w -> h w").clamp(0, 1)


def paste_back(original: Image.Image, edited: Image.Image, mask: Tensor) -> Image.Image:
    """The edited picture with the original's own pixels, to the byte, where the mask is 0. mask:
    (1, 1, h, w) over the latent; see `spread`. Both pictures are RGB, of one size."""
    share = spread(mask, original.size)[..., None].numpy()
    old, new = (np.asarray(picture, np.float32) for picture in (original, edited))
    return Image.fromarray((old + (new - old) * share).round().astype(np.uint8))


def over(picture: Image.Image, mask: Tensor) -> Image.Image:
    """An RGB picture dimmed where the mask (1, 1, h, w) is 0, reddened where it is 1."""
    red = Image.blend(picture, Image.new("RGB", picture.size, (230, 40, 40)), 0.35)
    return paste_back(picture.point(lambda level: 0.45 * level), red, mask)
