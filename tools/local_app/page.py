"""The page's events: each method returns new values for some of the parts, by the part.

What is made, and how, is in `edits.py`; here is what is asked for, and what is shown of it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from html import escape
from typing import Any

import gradio as gr

import ptinv
from ptinv.storage.pictures import open_picture
from ptinv.storage.provenance import fingerprint, model_hash

from . import edits, options
from .desk import Desk, Session, opened
from .edits import Wanted, Watch
from .layout import EXAMPLES, PICTURES, hint
from .looks import header
from .shown import STOPPED, Shown, Updates, ending, noted

ONE = dict(concurrency_id="model", concurrency_limit=1)  # runs of the model, one after the other
AT_ONCE = dict(queue=False, show_progress="hidden")
WEEK = 7 * 86400  # seconds after which Gradio deletes its own copies
MASKED = " Its mask was given by hand: brush it again."
PROGRESS = gr.Progress()  # Gradio gives each run its own
Runs = Iterator[Updates]


class Page(Shown):
    """The page, and what happens on it."""

    def __init__(self, model: ptinv.StableDiffusion, folder: str, embedded: bool = False):
        self.desk = Desk(model)
        self.blocks = gr.Blocks(title="ptinv", analytics_enabled=False, delete_cache=(3600, WEEK))
        with self.blocks:
            self.session = gr.State(partial(Session, folder))
            self.lay_out(header(model.name, embedded))
            self.connect()

    def connect(self) -> None:
        """Connects each event to its method."""
        asked = [self.session, self.prompt, self.method, self.source, self.eta, self.mask]
        asked += self.fields.values()
        shown = [self.result, self.eta, self.note, self.download, self.source, self.words]
        shown += [self.mask, self.history]
        restored = [*shown, self.picture, self.prompt, self.method, *self.fields.values()]
        run = dict(inputs=asked, outputs=shown, show_progress_on=self.result) | ONE
        runs = [
            self.edit.click(self.on_edit, **run),
            self.prompt.submit(self.on_edit, **run),
            self.eta.release(self.on_eta, trigger_mode="always_last", **run),
            self.look.click(self.on_look, **run),
        ]
        self.stop.click(self.on_stop, outputs=self.note, cancels=runs, **AT_ONCE)
        self.blocks.unload(self.on_leave)

        # as the file that was given: ptinv opens it, as any other
        raw = dict(preprocess=False)
        self.picture.upload(self.on_upload, [self.session, self.picture], restored, **raw)
        self.picture.clear(self.on_clear, self.session, shown)
        self.examples.click(self.on_example, [self.session, self.examples], restored)
        self.history.click(self.on_history, [self.session, self.history], restored)
        changed = [self.session, self.method], [*self.fields.values(), self.eta, self.method]
        self.method.change(self.on_method, *changed, **AT_ONCE)
        about = [self.source, self.fields["focus"]]
        forgotten = [*about, self.words, self.mask]
        self.prompt.input(self.on_prompt, [self.session, self.source], forgotten, **AT_ONCE)
        self.mask.clear(self.on_no_mask, self.session, self.mask, **AT_ONCE)
        self.words.input(self.on_words, [self.session, self.words], about, **AT_ONCE)

    # what is asked for

    def wanted(
        self, session: Session, prompt: str, method: str, source: str, eta: float, mask, *fields
    ) -> Wanted:
        """The edit that the page's fields ask for. Raises InputError."""
        if session.picture is None:
            raise ptinv.PictureError("there is no picture yet; give one, or take an example")
        picture = open_picture(session.picture)
        ignored = ptinv.METHODS[method].ignored
        given = options.given(dict(zip(self.fields, fields, strict=True)))
        given = {name: value for name, value in given.items() if name not in ignored}
        if source.strip():
            given["source"] = source.strip()
        if session.moved and "eta" not in ignored:
            given["eta"] = eta
        # told by what comes back: Gradio calls it input, too, when the page shows a mask
        if session.painted is not None and mask:
            layers = mask["layers"], session.painted
            own, shown = (edits.brushed(some, picture.size) for some in layers)
            if own is None and shown is not None:
                raise ptinv.PictureError("nothing is brushed; brush where it may change, or look")
            if own != shown:
                given["mask"] = own
        return Wanted(picture, prompt, method, given)

    # what the buttons do

    def on_edit(self, request: gr.Request, progress: gr.Progress = PROGRESS, *asked) -> Runs:
        """Edits, from what is kept if it serves; shows what is understood before it samples."""
        session, *fields = asked

        def run(watch: Watch) -> Runs:
            yield from self.run(watch, session, self.wanted(session, *fields))

        yield from self.seated(request, progress, run)

    def on_eta(self, request: gr.Request, progress: gr.Progress = PROGRESS, *asked) -> Runs:
        """Samples the edit that is shown at another strength; before there is one, notes it."""
        session, eta = asked[0], asked[4]
        session.moved = True

        def run(watch: Watch) -> Runs:
            if session.last and "eta" not in session.last.row.ignored:
                options = session.last.options | {"eta": eta}
                yield from self.run(watch, session, replace(session.last, options=options))

        yield from self.seated(request, progress, run)

    def on_look(self, request: gr.Request, progress: gr.Progress = PROGRESS, *asked) -> Runs:
        """Shows what an edit understands, without making it; what was brushed goes."""
        session, *fields = asked
        session.painted = None

        def run(watch: Watch) -> Runs:
            wanted, picture = self.wanted(session, *fields), session.picture
            start = edits.begin(self.desk.model, wanted, watch, session.start)
            if session.picture == picture:
                session.start = start
                yield self.understood(start, wanted) | {self.mask: gr.update(visible=False)}
            mask = edits.look(self.desk.model, start, wanted, watch)
            if session.picture == picture:
                yield {
                    **self.masked(session, wanted.picture, mask),
                    self.note: noted(start.remarks, mask),
                }

        yield from self.seated(request, progress, run)

    def seated(
        self, request: gr.Request, progress: gr.Progress, run: Callable[[Watch], Runs]
    ) -> Runs:
        """A run that has the model, as far as it goes."""
        with ending() as said, self.desk.seat(request.session_hash, progress) as watch:
            yield from run(watch)
        yield {self.note: said[0] if said else gr.skip()}  # Gradio waits for one that shows nothing

    def run(self, watch: Watch, session: Session, wanted: Wanted) -> Runs:
        """Makes an edit and shows it, unless there is another picture by then."""
        picture = session.picture
        start = edits.begin(self.desk.model, wanted, watch, session.start)
        if session.picture == picture:
            session.start = start
            yield self.understood(start, wanted)
        result, remarks = edits.make(self.desk.model, start, wanted, watch)
        if not (entry := session.add(picture, result)):
            return
        session.last = wanted
        seconds = time.monotonic() - watch.begun
        brushed = "mask" in wanted.options  # it stays as it is
        yield {
            self.result: tuple(map(str, entry)),
            # where the person has not said, it is the method's; never moved from under a hand
            **({} if session.moved else {self.eta: result.request.settings.eta}),
            self.download: gr.update(value=str(entry.after), interactive=True),
            self.history: self.listed(session),
            self.note: noted([*remarks, f"made in {seconds:.0f} s"], result.mask),
            **({} if brushed else self.masked(session, wanted.picture, result.mask)),
        }

    def on_stop(self, request: gr.Request) -> str:
        """Stops this person's run, wherever it is."""
        self.desk.stop(request.session_hash)
        return STOPPED

    def on_leave(self, request: gr.Request) -> None:
        """Stops the run of someone who has closed the page."""
        self.desk.stop(request.session_hash)

    # what changes what is asked for

    def on_upload(self, session: Session, file: dict[str, Any]) -> Updates:
        """Takes a picture; where ptinv made it, also the settings, and what it was made of if that
        is at hand."""
        with ending() as said:
            picture, found = opened(file["path"]), options.recorded(file["path"])
            if not found:
                return self.taken(session, picture)
            recipe, _ = found
            at_hand = [*filter(None, [session.picture]), *(e.before for e in session.history)]
            known = map(open_picture, [*at_hand, *PICTURES])
            same = (other for other in known if fingerprint(other) == recipe.picture_hash)
            about = "The settings are restored"
            if before := next(same, None):
                picture, about = before, f"{about}, and the picture that they were for."
            else:
                about += ". To repeat the edit, give the picture that it was made of."
            about += MASKED if recipe.mask_hash else ""
            if recipe.made_with["model_hash"] != model_hash(self.desk.model):
                made_by = escape(recipe.made_with["model"], quote=False)
                about += f" Another model made it, {made_by}: the edit will be another."
            updates = self.taken(session, picture)
            return updates | self.restored(session, *found) | {self.note: about}
        # what was there before
        return {self.picture: session.picture and str(session.picture), self.note: said[0]}

    def on_example(self, session: Session, index: int) -> Updates:
        """Takes an example, with a sentence for it."""
        picture, prompt = open_picture(PICTURES[index]), [*EXAMPLES.values()][index]
        return self.taken(session, picture) | {self.prompt: prompt, self.fields["focus"]: ""}

    def on_history(self, session: Session, index: int) -> Updates:
        """Shows an earlier edit, and restores its settings."""
        entry = session.history[index]
        with ending() as said:
            recipe, chosen = options.recorded(entry.after)
            updates = self.taken(session, entry.before) | self.restored(session, recipe, chosen)
            if not recipe.mask_hash:  # else it cannot be made again
                known = open_picture(entry.before), recipe.prompt, recipe.method, chosen
                session.last = Wanted(*known)
            return updates | {
                self.result: tuple(map(str, entry)),
                self.download: gr.update(value=str(entry.after), interactive=True),
                self.note: MASKED.strip() if recipe.mask_hash else "",
            }
        return {self.note: said[0]}

    def on_clear(self, session: Session) -> Updates:
        """Takes the picture away."""
        updates = self.taken(session, None)
        del updates[self.picture]
        return updates

    def on_method(self, session: Session, method: str) -> list[Any]:
        """Shows the settings that a method reads, with its own defaults."""
        row = ptinv.METHODS[method]
        fields = [gr.update(visible=n not in row.ignored, **hint(row, n)) for n in self.fields]
        eta = gr.update(visible="eta" not in row.ignored)
        return [*fields, eta, gr.update(info=row.title)]

    def on_prompt(self, session: Session, source: str) -> list[Any]:
        """Forgets what was understood of another sentence; a text that was typed stays."""
        session.painted = None
        understood = session.start is not None and source == session.start.source
        words, mask = gr.update(visible=False), gr.update(visible=False, value=None)
        return ["" if understood else gr.skip(), "", words, mask]

    def on_no_mask(self, session: Session) -> Updates:
        """Puts the picture back to brush on, which Gradio takes away with the layers."""
        if session.picture is None:
            return {self.mask: gr.skip()}
        return self.masked(session, open_picture(session.picture), None)

    def on_words(self, session: Session, new: list[int]) -> list[Any]:
        """Corrects what the edit is about: the words that its mask follows, or the source text."""
        if session.start is None:
            return [gr.skip(), gr.skip()]
        model, start = self.desk.model, session.start
        if not edits.follows_words(start.wanted):
            return [edits.source_with(model, start, new), gr.skip()]
        words, _ = edits.words_of(model, start, start.wanted)
        return [gr.skip(), " ".join(words[i] for i in sorted(new))]
