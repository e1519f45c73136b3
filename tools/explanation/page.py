"""The page of a story: its measurements in the template's places, one text that needs nothing else.

The words are in `page.html`, its looks in `page.css`, what moves in `page.js`.
"""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template
from typing import NamedTuple

import ptinv
from ptinv.settings import DEFAULTS, NAMES, OF_AN_INVERSION

from .equations import EQUATIONS
from .figures import Album
from .panels import db, drawn_panels, own_mask, percent
from .story import Story

LIMIT = 8_000_000  # bytes of a page
QUALITIES = (92, 84, 72, 55, 35)  # of WebP: the first that keeps a page below its limit
HERE = Path(__file__).parent


class Place(NamedTuple):
    """A page's links, and the commands that repeat what it tells."""

    base: str  # of the links to the repository's files
    command: str  # that makes the edit
    page_command: str  # that makes the page


def page_of(story: Story, place: Place) -> str:
    """A story as HTML, in pictures as good as its limit allows."""
    files = {name: (HERE / f"page.{name}").read_text(encoding="utf-8")
             for name in ("html", "css", "js")}  # fmt: skip
    album, filled = Album(), dict(style=files["css"], script=files["js"])
    filled |= words(story, place) | drawn_panels(story, album)
    filled |= {f"equation_{name}": equation(name, story, place) for name in EQUATIONS}
    filled |= dict(understood=understood(story, album, place), record=record(story))
    text, page = Template(files["html"]).substitute(filled), ""
    for quality in QUALITIES:
        page = album.fill(text, quality)
        if len(page.encode()) < LIMIT:
            break
    return page


def words(story: Story, place: Place) -> dict[str, str]:
    """The values of the running text, by name."""
    s, by, edited = story, story.settings, story.edited
    (c, h, w), (width, height) = s.latent, s.picture.size
    walks = {walk.guidance: walk for walk in s.walks if not walk.tuned}
    return dict(
        version=ptinv.__version__,
        prompt=escape(s.prompt),
        model=escape(edited.record["model"]),
        who=who(story),
        width=str(width),
        height=str(height),
        latent=f"{c} × {h} × {w}",
        ratio=f"{3 * width * height / (c * h * w):.3g}",
        ceiling=db(s.ceiling),
        steps=str(s.steps),
        psnr_unguided=db(walks[0.0].psnr),
        psnr_conditional=db(walks[1.0].psnr),
        psnr_guided=db(walks[max(walks)].psnr),
        psnr_tuned=db(s.walks[-1].psnr),
        omega=f"{max(walks):g}",
        iterations=f"{by.inner_steps} iteration{'' if by.inner_steps == 1 else 's'}",
        lr=f"{by.lr:g}",
        moved=percent(s.tuned[0].moved),
        mask_words=followed(story),
        method=escape(edited.method),
        psnr_edit=db(edited.psnr),
        command=escape(place.command),
        page_command=escape(place.page_command),
        base=escape(place.base),
    )


def who(story: Story) -> str:
    """Names the method that made the edit, and the panels that are about it."""
    edited = story.edited
    made = f"The edit was made by <code>{escape(edited.method)}</code>"
    if edited.method == "pti":
        return f"{made}, the paper’s method, which panels 2 to 6 tell."
    told = f"{made}. Panels 2 to 6 tell the paper’s method, <code>pti</code>, of the same picture "
    told += "and prompt; the edit itself is in panel 7."
    if edited.reads:
        told += f" <code>{edited.method}</code> tunes nothing, and reads off the picture what is "
        told += "new, and from that where to edit and how strongly: the end of panel 6."
    return told


def followed(story: Story) -> str:
    """The origin of pti's mask, in a sentence."""
    follows = "the edit is about: "
    if story.about.startswith(follows):
        return f"Here the mask follows “{escape(story.about.removeprefix(follows))}”."
    if all(one.mask is None for one in story.masks):
        return "Here nothing is masked, and the edit shows everywhere."
    return f"Here the mask is made by <code>{escape(story.settings.mask_expression or '')}</code>."


READING = (
    "A network that predicts noise also judges texts: the one that describes a picture predicts "
    "its noise best. So words of the prompt were left out, those that are missed least exchanged "
    "for others, and what makes the prediction better is taken for what is there."
)


def understood(story: Story, album: Album, place: Place) -> str:
    """The edit's reading of the picture, and its mask; empty for a method that reads nothing."""
    edited, by = story.edited, story.edited.settings
    if not edited.reads:
        return ""
    marked = "".join(f"<mark>{escape(text)}</mark>" if new else escape(text)
                     for text, new in edited.words)  # fmt: skip
    new = ", ".join(text for text, is_new in edited.words if is_new) or "nothing"
    how = "What the picture shows was given." if edited.told else READING
    return f"""<div class="aside"><h3>What {edited.method} understood</h3>
<p>{how}</p>
<p class="read">The picture shows “{escape(by.source or "")}”.<br>It should become “{marked}”.</p>
<p>New: <b>{escape(new)}</b>. Its settings here: {by.steps} steps, encode ratio {by.encode_ratio:g}, ω = {by.guidance:g}, η = {by.eta:g}.</p>
{own_mask(story, album)}
{equation("reading", story, place)}</div>"""  # noqa: E501


def equation(name: str, story: Story, place: Place) -> str:
    """An equation's lines, with links to what computes it, and the Python that has it."""
    found, by = EQUATIONS[name], vars(story.settings)
    links = ", ".join(f'<a href="{escape(place.base)}{path}"><code>{function}</code></a>'
                      for function, path in found.functions)  # fmt: skip

    def given(names: Iterable[str]) -> str:
        return "".join(f", {n}={by[n]!r}" for n in names if by[n] != DEFAULTS[n])

    options = given(OF_AN_INVERSION)
    more = given(n for n in NAMES if n not in (*OF_AN_INVERSION, "eta", "mask"))
    if by["mask"] != DEFAULTS["mask"]:
        more += f", mask={None if by['mask'] is None else 'mask.png'!r}"
    return f"""<div class="equation"><div class="lines">{"".join(found.lines)}</div>
<p class="computed">computed by {links}<br>
in Python: <code>{escape(found.python.format(options=options, more=more, **by))}</code></p></div>"""


def record(story: Story) -> str:
    """The edit's record, as its PNG would carry it; of the settings, those that are not usual."""
    rows, usual = [], json.loads(json.dumps(DEFAULTS))
    for name, value in story.edited.record.items():
        if name == "settings":
            said = json.loads(value).items()
            value = ", ".join(f"{n} {v}" for n, v in said if v != usual[n]) or "the defaults"
        rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>')
    return f"""<details open class="record">
<summary>Settings, model, seed: what the edit’s PNG carries</summary>
<div class="scrolled"><table>{"".join(rows)}</table></div></details>"""
