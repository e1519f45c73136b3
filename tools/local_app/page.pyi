"""The page: a picture and a sentence on one side, the edit and what it understood on the other.

Its parts are made in order by `build`; what they do is in the methods of `Page`, each of which
returns new values for some of them.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import gradio as gr
from PIL.ImageOps import contain
from torch import Tensor

import ptinv
from ptinv.cli.options import ABOUT
from ptinv.settings import ATTENTION, DEFAULTS, EDIT, INVERSION
from ptinv.storage.checkpoint import EMBEDDED
from ptinv.storage.pictures import open_picture
from ptinv.storage.provenance import Recipe, fingerprint

from . import edits, options
from .desk import Desk, Session, opened
from .edits import Start, Stopped, Wanted, Watch
from .looks import RED, header

EXAMPLES = {
    "birds": "two pink dogs in the snow",
    "house": "a brown house in the snow",
    "mushroom": "a blue mushroom on the road",
    "fish": "a white car on the road",
}
PICTURES = [EMBEDDED / "examples" / f"{name}.png" for name in EXAMPLES]
GROUPS = {
    INVERSION: "The inversion and its tuning",
    ATTENTION: "Words and attention",
    EDIT: "The mask, and what is left",
}
LABELS = {"guidance": "Guidance ω", "negative": "What it should not show"}
LABELS |= {"paste_back": "Keep the picture's own pixels outside the mask"}
ONE = dict(concurrency_id="model", concurrency_limit=1)  # runs of the model, one after the other
AT_ONCE = dict(queue=False, show_progress="hidden")
SHOWN = (1024, 1024)  # pixels that a picture to brush on has at most
STOPPED = "Stopped."
PROGRESS = gr.Progress()  # Gradio gives each run its own
Updates = dict[Any, Any]  # by the page's part
Runs = Iterator[Updates]

from gradio.events import Dependency

class Upload(gr.Image):
    """A picture as the file that was given: ptinv opens it, as any other."""

    is_template = True

    def preprocess(self, payload):
        return payload and payload.path
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


@contextmanager
def told() -> Iterator[None]:
    """The API's own sentences, as the page's errors."""
    try:
        yield
    except (ptinv.InputError, FloatingPointError, OSError) as error:
        raise gr.Error(str(error), title="Not so", print_exception=False) from error


@contextmanager
def stoppable() -> Iterator[list[Stopped]]:
    """Ends a block that is stopped; the list has something in it then."""
    ended: list[Stopped] = []
    try:
        yield ended
    except Stopped as stop:
        ended.append(stop)


def noted(remarks: list[str], mask: Tensor | None) -> str:
    """What there is to say of an edit."""
    return "  \n".join([*remarks, *([] if mask is not None else ["it may change everywhere"])])


class Page:
    """All parts of the page, and what happens to them."""

    def __init__(self, model: ptinv.StableDiffusion, folder: str, embedded: bool = False):
        self.desk = Desk(model)
        self.blocks = gr.Blocks(title="ptinv", analytics_enabled=False, delete_cache=(600, 86400))
        with self.blocks:
            self.session = gr.State(partial(Session, folder))
            gr.HTML(header(model.name, embedded), elem_id="head")
            with gr.Row():
                with gr.Column(scale=5, min_width=320):
                    self.lay_out_question()
                with gr.Column(scale=6, min_width=320):
                    self.lay_out_answer()
            self.connect()

    def lay_out_question(self) -> None:
        self.picture = Upload(
            label="Picture",
            sources=["upload", "webcam", "clipboard"],
            height=300,
            buttons=[],
            placeholder="Drop a picture here,\nor one that ptinv made for its settings",
        )
        self.prompt = gr.Textbox(
            label="What it should become", placeholder=EXAMPLES["birds"], max_lines=4
        )
        with gr.Row():
            self.edit = gr.Button("Edit", variant="primary", min_width=90)
            self.look = gr.Button("Look first", min_width=90)
            self.stop = gr.Button("Stop", min_width=90)
        self.examples = gr.Dataset(
            components=[gr.Image(render=False)],
            samples=[[str(path)] for path in PICTURES],
            label="Or one of these",
            type="index",
        )
        self.method = gr.Dropdown(
            [(f"{name}: {row.title}", name) for name, row in ptinv.METHODS.items()],
            value="auto",
            label="Method",
        )
        self.fields = {name: field_of(name) for name in options.USEFUL}
        with gr.Accordion("All settings", open=False):
            for group, title in GROUPS.items():
                gr.Markdown(f"### {title}")
                named = (name for name in options.REST if ABOUT[name]["group"] == group)
                self.fields |= {name: field_of(name) for name in named}

    def lay_out_answer(self) -> None:
        self.result = gr.ImageSlider(
            label="Before and after", height=420, buttons=["fullscreen"], max_height=420
        )
        self.eta = gr.Slider(
            0, 1, 0.9, step=0.05, label="Strength η", info="0 is the picture, 1 the sentence alone"
        )
        with gr.Row():
            self.note = gr.Markdown(elem_id="note")
            self.download = gr.DownloadButton("Download", interactive=False, scale=0, min_width=120)
        self.source = gr.Textbox(
            label="What the picture shows", placeholder="read off the picture", max_lines=4
        )
        self.words = gr.CheckboxGroup(label="Words", elem_id="words", visible=False)
        self.mask = gr.ImageEditor(
            label="Where it may change: brush or erase",
            type="pil",
            format="png",
            sources=[],
            transforms=[],
            layers=False,
            brush=gr.Brush(default_size=12, colors=[RED], color_mode="fixed"),
            eraser=gr.Eraser(default_size=12),
            height=360,
            buttons=[],
            visible=False,
        )
        self.history = gr.Gallery(
            label="Your edits", columns=6, height=150, allow_preview=False, visible=False
        )

    def connect(self) -> None:
        """What happens when."""
        asked = [self.session, self.prompt, self.method, self.source, self.eta, self.mask]
        asked += self.fields.values()
        shown = [self.result, self.eta, self.note, self.download, self.source, self.words]
        shown += [self.mask, self.history]
        restored = [*shown, self.picture, self.prompt, self.method, *self.fields.values()]
        run = dict(inputs=asked, outputs=shown, show_progress_on=self.result) | ONE
        runs = [
            self.edit.click(self.on_edit, **run),
            self.prompt.submit(self.on_edit, **run),
            self.eta.release(self.on_eta, **run),
            self.look.click(self.on_look, **run | dict(show_progress_on=self.mask)),
        ]
        self.stop.click(self.on_stop, outputs=self.note, cancels=runs, **AT_ONCE)
        self.blocks.unload(self.on_leave)

        self.picture.upload(self.on_upload, [self.session, self.picture], restored)
        self.picture.clear(self.on_clear, self.session, shown)
        self.examples.click(self.on_example, [self.session, self.examples], restored)
        self.history.select(self.on_history, self.session, restored)
        changed = [self.session, self.method], [*self.fields.values(), self.eta]
        self.method.change(self.on_method, *changed, **AT_ONCE)
        self.prompt.input(self.on_prompt, self.session, [self.source, self.words], **AT_ONCE)
        focus = self.source, self.fields["focus"]
        self.words.input(self.on_words, [self.session, self.words], [*focus], **AT_ONCE)
        self.mask.input(self.on_brush, self.session, **AT_ONCE)

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
        if session.brushed and mask:
            given["mask"] = edits.brushed(mask["layers"], picture.size)
        return Wanted(picture, prompt, method, given)

    # what the buttons do

    def on_edit(self, request: gr.Request, progress: gr.Progress = PROGRESS, *asked) -> Runs:
        """Edits, from what is kept if it serves; shows what is understood before it samples."""
        session, *fields = asked
        with told(), self.desk.seat(request.session_hash, progress) as watch:
            yield from self.run(watch, session, self.wanted(session, *fields))

    def on_eta(self, request: gr.Request, progress: gr.Progress = PROGRESS, *asked) -> Runs:
        """Samples the edit that is shown at another strength; before there is one, notes it."""
        session, eta = asked[0], asked[4]
        session.moved = True
        if session.last is None or "eta" in session.last.row.ignored:
            return
        wanted = replace(session.last, options=session.last.options | {"eta": eta})
        with told(), self.desk.seat(request.session_hash, progress) as watch:
            yield from self.run(watch, session, wanted)

    def on_look(self, request: gr.Request, progress: gr.Progress = PROGRESS, *asked) -> Runs:
        """Shows what an edit understands, without making it; what was brushed goes."""
        session, *fields = asked
        session.brushed = False
        with told(), self.desk.seat(request.session_hash, progress) as watch:
            wanted = self.wanted(session, *fields)
            with stoppable() as ended:
                start = edits.begin(self.desk.model, wanted, watch, session.start)
                session.start = start
                yield self.understood(start)
                mask = edits.look(self.desk.model, start, wanted, watch)
                yield {**self.masked(wanted, mask), self.note: noted(start.remarks, mask)}
        if ended:
            yield {self.note: STOPPED}

    def run(self, watch: Watch, session: Session, wanted: Wanted) -> Runs:
        """Makes an edit and shows it."""
        with stoppable() as ended:
            start = edits.begin(self.desk.model, wanted, watch, session.start)
            session.start = start
            yield self.understood(start)
            result, remarks = edits.make(self.desk.model, start, wanted, watch)
            entry, session.last = session.add(result), wanted
            seconds = time.monotonic() - watch.begun
            yield {
                self.result: tuple(map(str, entry)),
                self.eta: gr.update(value=result.request.settings.eta),
                self.download: gr.update(value=str(entry.after), interactive=True),
                self.history: self.listed(session),
                self.note: noted([*remarks, f"{seconds:.0f} s"], result.mask),
                **({} if "mask" in wanted.options else self.masked(wanted, result.mask)),
            }
        if ended:
            yield {self.note: STOPPED}

    def on_stop(self, request: gr.Request) -> str:
        """Stops this person's run, wherever it is."""
        self.desk.stop(request.session_hash)
        return STOPPED

    def on_leave(self, request: gr.Request) -> None:
        """Stops the run of someone who has closed the page."""
        self.desk.stop(request.session_hash)

    # what changes what is asked for

    def on_upload(self, session: Session, path: str) -> Updates:
        """Takes a picture; where ptinv made it, also the settings, and what it was made of if that
        is at hand."""
        with told():
            picture, found = opened(path), options.recorded(path)
        if not found:
            return self.taken(session, lambda: session.take(picture))
        recipe, chosen = found
        at_hand = [*filter(None, [session.picture]), *(e.before for e in session.history)]
        for known in [*at_hand, *PICTURES]:
            if fingerprint(open_picture(known)) == recipe.picture_hash:
                updates = self.taken(session, lambda: session.take(open_picture(known)))
                said = "The settings are restored, and the picture that they were for."
                break
        else:
            updates = self.taken(session, lambda: session.take(picture))
            said = "The settings are restored. To repeat the edit, give the picture it was made of."
        if recipe.mask_hash:
            said += " The mask was brushed by hand: brush it again."
        return updates | self.restored(session, recipe, chosen) | {self.note: said}

    def on_example(self, session: Session, index: int) -> Updates:
        """Takes an example, with a sentence for it."""
        picture = open_picture(PICTURES[index])
        prompt = [*EXAMPLES.values()][index]
        return self.taken(session, lambda: session.take(picture)) | {self.prompt: prompt}

    def on_history(self, session: Session, event: gr.SelectData) -> Updates:
        """Shows an earlier edit, and restores its settings."""
        entry = session.history[event.index]
        updates = self.taken(session, lambda: session.turn_to(entry.before))
        recipe, chosen = options.recorded(entry.after)
        return (
            updates
            | self.restored(session, recipe, chosen)
            | {
                self.result: tuple(map(str, entry)),
                self.download: gr.update(value=str(entry.after), interactive=True),
            }
        )

    def on_clear(self, session: Session) -> Updates:
        """Takes the picture away."""
        updates = self.taken(session, lambda: session.turn_to(None))
        del updates[self.picture]
        return updates

    def on_method(self, session: Session, method: str) -> list[Any]:
        """Shows the settings that a method reads, with its own defaults."""
        row = ptinv.METHODS[method]
        fields = [gr.update(visible=n not in row.ignored, **hint(row, n)) for n in self.fields]
        return [*fields, gr.update(visible="eta" not in row.ignored)]

    def on_prompt(self, session: Session) -> list[Any]:
        """Forgets what was understood of another sentence."""
        session.brushed = False
        return ["", gr.update(visible=False)]

    def on_words(self, session: Session, new: list[int]) -> list[Any]:
        """Corrects what the edit is about: the words that its mask follows, or the source text."""
        if session.start is None:
            return [gr.skip(), gr.skip()]
        model, start = self.desk.model, session.start
        if not edits.follows_words(start.wanted):
            return [edits.source_with(model, start, new), gr.skip()]
        words, _ = edits.words_of(model, start)
        return [gr.skip(), " ".join(words[i] for i in sorted(new))]

    def on_brush(self, session: Session) -> None:
        """Notes that the mask is the person's own from now on."""
        session.brushed = True

    # what is shown

    def taken(self, session: Session, take: Callable[[], None]) -> Updates:
        """The page with another picture."""
        with told():
            take()
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
        empty = {name: False if DEFAULTS[name] is False else None for name in self.fields}
        return {
            self.prompt: recipe.prompt,
            self.method: recipe.method,
            self.source: recipe.settings.source or "",
            self.eta: recipe.settings.eta,
            **{self.fields[name]: value for name, value in (empty | values).items()},
        }

    def understood(self, start: Start) -> Updates:
        """The words that an edit is about, and what the picture shows."""
        words, new = edits.words_of(self.desk.model, start)
        follows = edits.follows_words(start.wanted)
        lit = "the mask follows them" if follows else "they are new to the picture"
        choices = [(word, i) for i, word in enumerate(words)]
        label = f"Lit words: {lit}. Click one to correct that, then edit or look again"
        seen = bool(words) and (follows or bool(start.source))
        return {
            self.source: start.source,
            self.words: gr.update(choices=choices, value=new, label=label, visible=seen),
        }

    def masked(self, wanted: Wanted, mask: Tensor | None) -> Updates:
        """The mask over the picture, to be corrected."""
        picture = contain(wanted.picture, SHOWN)
        layers = [] if mask is None else [edits.layer(mask, picture.size)]
        value = {"background": picture, "layers": layers, "composite": None}
        return {self.mask: gr.update(value=value, visible=True)}

    def listed(self, session: Session) -> Any:
        """The history, newest first."""
        return gr.update(value=[str(e.after) for e in session.history], visible=True)


def field_of(name: str) -> Any:
    """The field of a setting; empty, it is as the method has it."""
    default, choices = DEFAULTS[name], ABOUT[name]["choices"]
    how = {"label": LABELS.get(name, name), "info": options.limits(name)}
    if default is False:
        return gr.Checkbox(**how)
    how |= hint(ptinv.METHODS["auto"], name)
    if choices:
        return gr.Dropdown([("", ""), *((c, c) for c in choices)], value="", **how)
    if isinstance(default, int | float) and name not in options.READ:
        return gr.Number(value=None, **how)
    return gr.Textbox(max_lines=2, **how)


def hint(row: ptinv.Method, name: str) -> dict[str, str]:
    """What a field shows while it is empty: the method's own default."""
    own = row.own(name)
    if own in (None, "", {}, False) and not isinstance(own, float) or ABOUT[name]["choices"]:
        return {}
    return {"placeholder": str(options.typed(name, own))}