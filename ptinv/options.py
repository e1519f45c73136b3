"""The verbs' options for editors and type checkers: the fields of `Settings`, none required."""

from typing import Literal, TypedDict

from .core.pictures import Picture
from .settings import Align, Gate, Measure, Norm, Sampler, Size, Start, WordGates

Options = TypedDict("Options", {  # noqa: UP013 (a class takes a line for each)
    "steps": int, "encode_ratio": float, "inversion_guidance": float, "size": Size | None,
    "inner_steps": int, "lr": float, "lr_decay": float, "stop_below": float, "guidance": float,
    "guidance_gate": Gate, "negative": str, "init_embedding": Start, "source": str | None,
    "among": str | None, "eta": float, "sampler": Sampler, "low_pass": int,
    "mask": Picture | Literal["auto"] | None,
    "mask_from": str | None, "mask_threshold": float, "mask_relative_to": Measure,
    "mask_dilate": int, "mask_feather": int, "mask_draws": int, "mask_clamp": float,
    "focus": str | None, "source_focus": str | None, "subtract": str | None,
    "reweight": dict[str, float], "cross_replace": WordGates, "self_replace": Gate,
    "self_cells": int, "align": Align, "proximal": Norm, "proximal_quantile": float,
    "paste_back": bool, "seed": int, "reuse_tuning": bool,
}, total=False)  # fmt: skip
Options.__doc__ = "Options of `edit` and the other verbs, by name; see `help(ptinv.Settings)`."
