"""Views of the page: a picture, the reading of it, its mask, an edit, and the history."""

from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from evaluation.command_line import sentence
from PIL import Image
from PIL.ImageOps import contain
from torch import Tensor

from ptinv.storage.provenance import Recipe

from . import edits, options
from .desk import Desk, Session
from .edits import Start, Stopped, Wanted
from .layout import Parts

SHOWN = (512, 512)  # pixels that a picture to brush on has at most
STOPPED = "Stopped."
Updates = dict[Any, Any]  # by the page's part


@contextmanager
def ending() -> Iterator[list[str]]:
    """Ends a block where it is stopped, or refused by the API; its sentence is in the list then."""
    said: list[str] = []
    try:
        yield said
    except Stopped:
        said.append(STOPPED)
    except Exception as error:
        if (why := sentence(error)) is None:
            raise
        said.append(escape(why, quote=False))  # it may hold what was typed, or a file's words
    if said and said != [STOPPED]:
        gr.Warning(said[0], title="That cannot be done")


def noted(remarks: list[str], mask: Tensor | None) -> str:
    """The note about an edit: its remarks, as HTML."""
    lines = [*remarks, *([] if mask is not None else ["it may change everywhere"])]
    return "<br>".join(escape(line, quote=False) for line in lines)


class Shown(Parts):
    """The parts of the page, filled."""

    desk: Desk

    def taken(self, session: Session, picture: Image.Image | Path | None) -> Updates:
        """The page with another picture: one that was opened, or a file of the session's."""
        session.take(picture)
        return {
            self.picture: session.picture and str(session.picture),
            self.result: None,
            self.note: "",
            self.source: "",
            self.words: gr.update(visible=False, choices=[], value=[]),
            self.mask: gr.update(visible=False, value=None),
            self.download: gr.update(interactive=False),
        }

    def restored(self, session: Session, recipe: Recipe, chosen: dict[str, Any]) -> Updates:
        """The fields as a record has them."""
        session.moved = "eta" in chosen
        values = {name: options.typed(name, chosen[name]) for name in self.fields if name in chosen}
        empty = {name: options.typed(name, options.EMPTY.get(name, "")) for name in self.fields}
        return {
            self.prompt: recipe.prompt,
            self.method: recipe.method,
            self.source: recipe.settings.source or "",
            self.eta: recipe.settings.eta,
            self.words: gr.update(visible=False, choices=[], value=[]),
            **{self.fields[name]: value for name, value in (empty | values).items()},
        }

    def understood(self, start: Start, wanted: Wanted) -> Updates:
        """The words that an edit is about, and what the picture shows."""
        words, new = edits.words_of(self.desk.model, start, wanted)
        follows = edits.follows_words(wanted)
        lit = "the mask follows them" if follows else "they are new to the picture"
        choices = [(word, i) for i, word in enumerate(words)]
        label = f"Lit words: {lit}. Click one to correct it"
        seen = bool(words) and (follows or bool(start.source))
        return {
            self.source: start.source,
            self.words: gr.update(choices=choices, value=new, label=label, visible=seen),
        }

    def masked(self, session: Session, picture: Image.Image, mask: Tensor | None) -> Updates:
        """The mask over the picture, to be corrected."""
        picture = contain(picture, SHOWN)
        session.painted = [] if mask is None else [edits.layer(mask, picture.size)]
        value = {"background": picture, "layers": session.painted, "composite": None}
        # its layers are put where they belong on a canvas of their own size alone
        return {self.mask: gr.update(value=value, canvas_size=picture.size, visible=True)}

    def listed(self, session: Session) -> Any:
        """The history, newest first."""
        return gr.Dataset(samples=[[str(e.after)] for e in session.history], visible=True)
