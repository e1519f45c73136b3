"""Every setting as a page's field has it: its value as it is typed, and back."""

import argparse
from contextlib import suppress
from pathlib import Path
from typing import Any

from evaluation.command_line import joined

import ptinv
from ptinv.cli.options import ABOUT, READ
from ptinv.settings import DEFAULT, DEFAULTS
from ptinv.storage.provenance import Recipe

OWN = ("eta", "source")  # that a page has by itself
USEFUL = ("guidance", "negative", "mask", "paste_back")  # to be seen at once
EMPTY = {"mask": "auto", "paste_back": False}  # of the switches; a mask is switched off
IDLE = ("reuse_tuning",)  # of an inversion's file
REST = tuple(n for n in DEFAULTS if n not in OWN + USEFUL + IDLE)  # folded away
BY_WORD = ("reweight", "cross_replace")  # repeatable: WORD=VALUE, WORD=VALUE


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """The options of fields that are filled in. Raises InputError for one that can't be read."""
    return {name: read(name, value) for name, value in fields.items() if filled(value)}


def filled(value: Any) -> bool:
    """True unless a field is as it was: empty, or a switch that is off."""
    return bool(str(value).strip()) and value is not None and value is not False


def read(name: str, value: Any) -> Any:
    """The value of a setting from what is in its field."""
    if name == "mask":
        return None
    default = DEFAULTS[name]
    if name not in READ and isinstance(default, int | float) and not isinstance(default, bool):
        with suppress(ValueError):
            return type(default)(value)
    if name not in READ:
        return value  # as it is: ptinv says what it should be
    try:
        if name in BY_WORD:
            return dict(READ[name](part.strip()) for part in value.split(","))
        return READ[name](value)
    except argparse.ArgumentTypeError as error:
        raise ptinv.InputError(f"{name}: {error}") from error


def typed(name: str, value: Any) -> Any:
    """A setting's value as its field has it: what `read` reads it from."""
    if name == "mask":
        return value is None
    if isinstance(value, dict):
        spelt = {("" if word == DEFAULT else f"{word}="): v for word, v in value.items()}
        return ", ".join(f"{word}{typed('', v)}" for word, v in spelt.items())
    if isinstance(value, tuple | list):
        return joined(name, value)
    return str(value) if isinstance(value, int | float) and type(value) is not bool else value


def recorded(path: str | Path) -> tuple[Recipe, dict[str, Any]] | None:
    """The record in a PNG that an edit was saved as, and its options where they aren't the method's
    own; None for any other picture. Raises InputError for a damaged record."""
    try:
        recipe = Recipe.read(path)
    except ptinv.InputError as error:
        if "is damaged" in str(error):
            raise
        return None
    if recipe.command != "edit" or recipe.method not in ptinv.METHODS:
        return None
    method, settings = ptinv.METHODS[recipe.method], vars(recipe.settings)
    chosen = set().union(*method.strengths.values())  # by what is new, unless they are given
    names = [n for n in DEFAULTS if n in chosen or settings[n] != method.own(n)]
    return recipe, {n: settings[n] for n in names if n not in (*method.ignored, *IDLE)}


def limits(name: str) -> str:
    """A setting's meaning and range."""
    return f"{ABOUT[name]['meaning']}{ABOUT[name]['limits']}"
