"""The one model, whoever is at it, and what is kept for each person: no more than a few pictures.

A session's files are in a folder of its own, which goes when the session does.
"""

import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

import ptinv
from ptinv.storage.pictures import open_picture, save_picture

from .edits import Start, Wanted, Watch

KEPT = 24  # edits in a session's history


class Entry(NamedTuple):
    """An edit of the history: the picture's file, and the edit's, with its record."""

    before: Path
    after: Path


@dataclass(eq=False)
class Session:
    """The state of one person's page."""

    root: str  # where its folder goes
    picture: Path | None = None  # as it was opened: upright, sRGB
    start: Start | None = None
    last: Wanted | None = None  # the edit that is shown
    painted: list[Image.Image] | None = None  # layers of the mask, as it was shown to be corrected
    moved: bool = False  # η is the person's own
    history: list[Entry] = field(default_factory=list)  # the newest first
    count: int = 0  # of the files so far

    def path(self, name: str) -> Path:
        """A path for a new file."""
        if not hasattr(self, "folder"):
            self.folder = Path(tempfile.mkdtemp(dir=self.root))
            weakref.finalize(self, shutil.rmtree, self.folder, True)
        self.count += 1
        return self.folder / f"{name}-{self.count}.png"

    def take(self, picture: Image.Image | Path | None) -> None:
        """Makes a picture, or a file of one, what is edited; all that was understood goes."""
        if isinstance(picture, Image.Image):
            path = self.path("picture")
            save_picture(picture, path)
            picture = path
        before = self.picture
        self.picture, self.start, self.last, self.painted = picture, None, None, None
        self.moved = False
        self._tidy(before)

    def add(self, picture: Path, result: ptinv.Result) -> Entry | None:
        """Saves an edit, with its record, as the newest of the history; the oldest may go. Nothing
        where the picture that it was made of has gone by then."""
        slug = "-".join(re.findall("[a-z0-9]+", result.request.prompt.lower())[:8])[:80]
        entry = Entry(picture, self.path(slug or "edited"))
        result.save(entry.after)
        if self.picture != picture:
            entry.after.unlink()
            return None
        every = [entry, *self.history]
        self.history = every[:KEPT]
        self._tidy(*sum(every[KEPT:], ()))
        return entry

    def _tidy(self, *files: Path | None) -> None:
        """Deletes those of some files that nothing shows any more."""
        kept = {path for entry in self.history for path in entry} | {self.picture, None}
        for path in {*files} - kept:
            path.unlink(missing_ok=True)


class Desk:
    """The model, for one at a time."""

    def __init__(self, model: ptinv.StableDiffusion):
        self.model, self.free = model, threading.Lock()
        self.seated: tuple[str, Watch] | None = None

    @contextmanager
    def seat(self, who: str, say: Callable[[float, str], Any]) -> Iterator[Watch]:
        """The model for one run, which others wait for."""
        with self.free:
            watch = Watch(say)
            self.seated = who, watch
            try:
                yield watch
            finally:
                self.seated = None

    def stop(self, who: str) -> None:
        """Stops whoever it is, if theirs is the run: within one call of the UNet."""
        seated = self.seated
        if seated and seated[0] == who:
            seated[1].stopped = True


def opened(path: str | Path) -> Image.Image:
    """The picture in an uploaded file. The error says the file's own name, not where it was put."""
    try:
        return open_picture(path)
    except ptinv.InputError as error:
        raise ptinv.PictureError(str(error).replace(str(path), Path(path).name)) from error
