"""The page's parts, laid out: a picture and a sentence on one side, what is made on the other."""

from typing import Any

import gradio as gr

import ptinv
from ptinv.settings import ABOUT, ATTENTION, DEFAULTS, EDIT, INVERSION
from ptinv.storage.checkpoint import EMBEDDED

from . import options
from .desk import KEPT
from .looks import RED

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
SAID = {  # of the fields that are seen at once: label, and what there is to say
    "guidance": ("Guidance ω", "how closely the sentence is followed"),
    "negative": ("What it should not show", None),
    "mask": ("It may change everywhere", None),
    "paste_back": ("Keep the picture's own pixels where it may not change", None),
}


class Parts:
    """All parts of the page, which `page.py` connects."""

    def lay_out(self, head: str) -> None:
        """Makes them, in order."""
        gr.HTML(head, elem_id="head", padding=False)
        with gr.Row():
            with gr.Column(scale=5, min_width=320, elem_id="asked"):
                self.lay_out_question()
            with gr.Column(scale=6, min_width=320, elem_id="made"):
                self.lay_out_answer()

    def lay_out_question(self) -> None:
        self.picture = gr.Image(
            label="Picture",
            show_label=False,
            elem_id="picture",
            sources=["upload", "webcam", "clipboard"],
            height=300,
            buttons=[],
            placeholder="Drop a picture here,\nor one that ptinv made for its settings",
        )
        self.prompt = gr.Textbox(
            label="What it should become", placeholder=EXAMPLES["birds"], max_lines=4
        )
        with gr.Row(elem_id="buttons"):
            self.edit = gr.Button("Edit", variant="primary", min_width=90)
            self.look = gr.Button("Look first", min_width=90)
            self.stop = gr.Button("Stop", min_width=90)
        self.examples = gr.Dataset(
            components=[gr.Image(render=False)],
            samples=[[str(path)] for path in PICTURES],
            label="Or one of these",
            type="index",
        )
        with gr.Column(elem_id="settings"):
            with gr.Group():
                about = ptinv.METHODS["auto"].title
                self.method = gr.Dropdown(
                    [*ptinv.METHODS], value="auto", label="Method", info=about
                )
                self.fields = {name: field_of(name) for name in options.USEFUL}
            with gr.Accordion("All settings", open=False):
                for group, title in GROUPS.items():
                    gr.Markdown(f"**{title}**")
                    named = (name for name in options.REST if ABOUT[name]["group"] == group)
                    with gr.Row(equal_height=True):
                        self.fields |= {name: field_of(name) for name in named}

    def lay_out_answer(self) -> None:
        self.result = gr.ImageSlider(
            label="Before and after",
            elem_id="result",
            show_label=False,
            height=420,
            max_height=420,
            buttons=["fullscreen"],
        )
        self.eta = gr.Slider(
            0,
            1,
            0.9,
            step=0.05,
            elem_id="eta",
            label="Strength η",
            info="0 is the picture, 1 the sentence alone",
        )
        with gr.Row():
            self.note = gr.HTML(elem_id="note", padding=False)
            self.download = gr.DownloadButton("Download", interactive=False, scale=0, min_width=120)
        self.source = gr.Textbox(
            label="What the picture shows", placeholder="read off the picture", max_lines=4
        )
        self.words = gr.CheckboxGroup(label="Words", elem_id="words", visible=False)
        self.mask = gr.ImageEditor(
            label="The mask: brush, or erase",
            elem_id="mask",
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
        self.history = gr.Dataset(
            components=[gr.Image(render=False)],
            samples=[],
            elem_id="history",
            label="Your edits, the newest first",
            type="index",
            samples_per_page=KEPT,
            visible=False,
        )


def field_of(name: str) -> Any:
    """The field of a setting; empty, it is as the method has it."""
    default, choices = DEFAULTS[name], ABOUT[name]["choices"]
    label, info = SAID.get(name, (name.replace("_", " "), options.limits(name)))
    auto = ptinv.METHODS["auto"]
    how = dict(label=label, info=info, elem_id=f"option-{name}", min_width=200)
    how["visible"] = name not in auto.ignored
    if default is False or name == "mask":
        return gr.Checkbox(**how)
    how |= hint(auto, name)
    if choices:
        return gr.Dropdown([("", ""), *((c, c) for c in choices)], value="", **how)
    return gr.Textbox(max_lines=2, **how)


def hint(row: ptinv.Method, name: str) -> dict[str, str]:
    """The placeholder of a field while it is empty: the method's own default."""
    own = row.own(name)
    if DEFAULTS[name] is False or name == "mask" or ABOUT[name]["choices"]:
        return {}  # it is not typed
    return {"placeholder": "" if own in (None, "", {}) else str(options.typed(name, own))}
