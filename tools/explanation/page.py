"""The page of a story: its measurements in the template's places, pictures as WebP in the text.

The words are in `page.html`, its looks in `page.css`, what moves in `page.js`; all of it ends up in
one text that needs nothing else.
"""

import base64
import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import NamedTuple

from attention import over as heated
from PIL import Image, ImageChops

import ptinv
from ptinv.methods.masks import over as masked

from .curves import Axes, Curve, draw, x_scale
from .equations import EQUATIONS, Equation
from .measurements import Story, Walk, small

LIMIT = 8_000_000  # bytes of a page
QUALITIES = (92, 84, 72, 55, 35)  # of WebP: the first that keeps a page below its limit
MAGNIFIED = 8  # times, the difference that the round trip makes
HERE = Path(__file__).parent


class Place(NamedTuple):
    """Where a page is, and how what it tells is repeated."""

    base: str  # of the links to the repository's files
    command: str  # that makes the edit
    page_command: str  # that makes the page


class Shown(NamedTuple):
    """A picture with a label; described in words where it isn't seen."""

    picture: Image.Image
    label: str  # HTML
    words: str


class Frame(NamedTuple):
    """What a slider shows at one of its places."""

    pictures: Sequence[Shown]
    caption: str  # HTML
    value: str  # of the slider, in words
    x: float | None = None  # of the marker in its drawing


def page_of(story: Story, place: Place) -> str:
    """A story as HTML, in pictures as good as its limit allows."""
    text = ""
    for quality in QUALITIES:
        text = Page(story, place, quality).text()
        if len(text.encode()) < LIMIT:
            break
    return text


class Page:
    """One page at one quality of its pictures."""

    def __init__(self, story: Story, place: Place, quality: int):
        self.story, self.place, self.quality = story, place, quality
        # some pictures are shown more than once; each is kept, so that its id stays its own
        self.written: dict[int, tuple[Image.Image, str]] = {}

    def text(self) -> str:
        """The whole page."""
        files = {name: (HERE / name).read_text(encoding="utf-8")
                 for name in ("page.html", "page.css", "page.js")}  # fmt: skip
        filled = {f"equation_{name}": self.equation(name) for name in EQUATIONS}
        filled |= self.words() | self.figures() | self.curves()
        filled |= dict(style=files["page.css"], script=files["page.js"])
        return Template(files["page.html"]).substitute(filled)

    def words(self) -> dict[str, str]:
        """What stands in the running text."""
        s, by, edited = self.story, self.story.settings, self.story.edited
        (c, h, w), (width, height) = s.latent, s.picture.size
        # a guidance of 0 or 1 has no walk of its own
        walks = {walk.guidance: walk for walk in s.walks if not walk.tuned}
        who = f"The edit was made by <code>{escape(edited.method)}</code>"
        if edited.method == "pti":
            who += ", the paper’s method, which panels 2 to 6 tell."
        else:
            who += (". Panels 2 to 6 tell the paper’s method, <code>pti</code>, of the same "
                    "picture and prompt; the edit itself is in panel 7.")  # fmt: skip
            if edited.reads:
                who += (f" <code>{edited.method}</code> walks the same way without a tuning, and "
                        "reads off the picture what is new: the end of panel 6.")  # fmt: skip
        about = "The mask limits nothing here: it was switched off."
        if s.about:
            about = f"{s.about[0].upper()}{s.about[1:]}."
            about = escape(about).replace("The edit is about: ", "Here the mask follows: ")
        elif s.masks and s.masks[-1].mask is not None:
            about = f"Here the mask is made of: {escape(by.mask_expression or '')}."
        return dict(
            version=ptinv.__version__,
            prompt=escape(s.prompt),
            model=escape(edited.record["model"]),
            who=who,
            width=str(width),
            height=str(height),
            latent=f"{c} × {h} × {w}",
            ratio=f"{3 * width * height / (c * h * w):.3g}",
            ceiling=db(s.ceiling),
            steps=str(s.steps),
            psnr_unguided=db(walks[0.0].psnr),
            psnr_conditional=db(walks[1.0].psnr),
            psnr_guided=db(walks[by.guidance].psnr),
            psnr_tuned=db(s.walks[-1].psnr),
            omega=f"{by.guidance:g}",
            inner_steps=str(by.inner_steps),
            inner_plural="" if by.inner_steps == 1 else "s",
            lr=f"{by.lr:g}",
            moved=f"{s.tuned[0].moved:.0%}".replace("%", " %"),
            mask_words=about,
            method=escape(edited.method),
            psnr_edit=db(edited.psnr),
            command=escape(self.place.command),
            page_command=escape(self.place.page_command),
            base=escape(self.place.base),
        )

    def figures(self) -> dict[str, str]:
        """All that is made of pictures."""
        s, edited = self.story, self.story.edited
        picture = Shown(s.picture, "the picture", "the picture")
        lost = ImageChops.difference(s.picture, s.round_trip).point(lambda e: e * MAGNIFIED)
        before = Shown(s.picture, "before", "the picture before the edit")
        after = Shown(edited.picture, "after", f"the picture edited: {s.prompt}")
        return dict(
            hero=self.pictures([
                before._replace(picture=small(s.picture)),
                after._replace(picture=small(edited.picture)),
            ]),
            round_trip=self.pictures([
                picture,
                Shown(s.round_trip, f"after the round trip, {db(s.ceiling)}",
                      "the picture encoded and decoded"),
                Shown(small(lost), f"the difference, × {MAGNIFIED}",
                      f"the difference of the two, {MAGNIFIED} times as strong"),
            ], "block wide", 3),
            up=self.frames(
                "Step up", [self.guess(i) for i in range(len(s.up))], start=2 * len(s.up) // 3),
            down=self.frames("Step down", self.heading(), "distances", len(s.up) - 1, "wide"),
            reconstruction=self.pictures([
                picture,
                Shown(s.walks[-1].picture, f"tuned, {db(s.walks[-1].psnr)}",
                      "the picture reconstructed under the tuned embeddings"),
                self.untuned(),
            ], "block wide", 3),
            between=self.between(),
            heats=self.heats(),
            masks=self.masks(),
            understood=self.understood() if edited.reads else "",
            divider=self.pictures([before, after], "block divider"),
            record=self.record(),
        )  # fmt: skip

    def curves(self) -> dict[str, str]:
        """All that is drawn, with the numbers as tables."""
        s, ks = self.story, [one.k for one in self.story.tuned]
        moved = [one.moved for one in s.tuned]
        losses = [
            Curve("under c*", "faint", ks, [one.untuned for one in s.tuned]),
            Curve("before", "soft", ks, [one.before for one in s.tuned]),
            Curve("after", "accent", ks, [one.after for one in s.tuned]),
        ]
        etas = [one.eta for one in s.strengths]
        decibels = [one.psnr for one in s.strengths]
        falling = Axes("step k, from noise to picture", "loss", True, True, some_ticks(s.steps))
        title = "Loss of each step before and after its tuning, from {:.2g} and {:.2g} at the noisy"
        title = title.format(s.tuned[-1].before, s.tuned[-1].after) + " end to {:.2g} and {:.2g}"
        title = title.format(s.tuned[0].before, s.tuned[0].after)
        names = [name_of(walk) for walk in s.walks]
        distances = zip(*(walk.distances for walk in s.walks), strict=True)
        rows = [[str(s.steps - j), *(f"{d:.4f}" for d in row)] for j, row in enumerate(distances)]
        return dict(
            distance_chart=self.distance_chart(),
            loss_chart=draw("losses", title, losses, falling),
            moved_chart=draw(
                "moved", f"Distance of the tuned embedding to the prompt’s own, {moved[0]:.2g} of "
                "its length at the last step", [Curve("", "accent", ks, moved)],
                falling._replace(y="‖cₜ − c*‖ / ‖c*‖", logarithmic=False)),
            eta_chart=draw(
                "decibels", f"PSNR to the picture from {db(decibels[0])} at η = 0 to "
                f"{db(decibels[-1])} at η = 1", [Curve("", "accent", etas, decibels)],
                self.eta_axes()),
            distance_table=table("Distances to the trajectory", ["k", *names], rows),
            tuning_table=table(
                "Losses, and how far c moved", ["k", "under c*", "before", "after", "moved"],
                [[str(one.k), *(f"{loss:.6f}" for loss in (one.untuned, one.before, one.after)),
                  f"{one.moved:.4f}"] for one in s.tuned]),
        )  # fmt: skip

    def eta_axes(self) -> Axes:
        return Axes("η", "dB", x_ticks=(0, 0.2, 0.4, 0.6, 0.8, 1))

    def distances(self) -> tuple[list[Curve], Axes]:
        """Each walk's distance to the trajectory, over k = T' … 0."""
        s = self.story
        ks = list(range(s.steps, -1, -1))
        kinds = ["faint", "soft", "ink"][-len(s.walks) + 1 :] if len(s.walks) < 4 else None
        kinds = [*(kinds or ["faint", "soft", "ink"]), "accent"]
        drawn = [Curve(name_of(walk), kind, ks, walk.distances)
                 for walk, kind in zip(s.walks, kinds, strict=True)]  # fmt: skip
        axes = Axes("step k, from noise to picture", "distance", True, False, some_ticks(s.steps))
        return drawn, axes

    def distance_chart(self) -> str:
        drawn, axes = self.distances()
        ends = ", ".join(f"{w.distances[-1]:.3f} for {name_of(w)}" for w in self.story.walks)
        title = f"Distance to the trajectory over the steps down, at the picture {ends}"
        return draw("distances", title, drawn, axes)

    def guess(self, i: int) -> Frame:
        """One step of the way up."""
        s, one = self.story, self.story.up[i]
        where = f"step {one.k} of {s.steps}, t = {one.t}"
        return Frame(
            [Shown(one.latent, "the latent z*<sub>k</sub>, decoded as it is",
                   f"the latent after {where}, decoded: noisier at every step"),
             Shown(one.guess, "f<sub>θ</sub>, the picture that the step sees in it",
                   f"the clean picture that {where} predicts")],
            where.capitalize(), where)  # fmt: skip

    def heading(self) -> list[Frame]:
        """Where each walk believes it is going, at the steps that are shown, noisy end first."""
        s, (drawn, axes) = self.story, self.distances()
        x, frames = x_scale(drawn, axes), []
        for j, one in enumerate(reversed(s.up)):
            where = f"step {one.k} of {s.steps}, t = {one.t}"
            shown = [Shown(walk.frames[j], escape(name_of(walk)),
                           f"the clean picture that {where} predicts, {name_of(walk)}")
                     for walk in s.walks]  # fmt: skip
            frames.append(Frame(shown, where.capitalize(), where, x(one.k - 1)))
        return frames

    def untuned(self) -> Shown:
        """Where the guided walk comes back untuned."""
        walk = self.story.walks[-2]
        label = f"untuned at ω = {walk.guidance:g}, {db(walk.psnr)}"
        return Shown(walk.picture, label, f"where the guided walk comes back {label}")

    def between(self) -> str:
        """The edit at every strength."""
        s = self.story
        x = x_scale([Curve("", "", [one.eta for one in s.strengths], [])], self.eta_axes())
        frames = [
            Frame([Shown(one.picture, "", f"the edit by pti at η = {one.eta:g}")],
                  f"η = {one.eta:g}, {db(one.psnr)} to the picture", f"η = {one.eta:g}", x(one.eta))
            for one in s.strengths
        ]  # fmt: skip
        start = max(i for i, one in enumerate(s.strengths) if one.eta <= s.settings.eta)
        return self.frames("η", frames, "decibels", start, "narrow")

    def heats(self) -> str:
        """Each word's map over the picture."""
        shown, tiles = small(self.story.picture), []
        for word, heat in self.story.heats:
            most = f"{heat.max():.1%}".replace("%", " %")
            tiles.append(Shown(heated(shown, heat), f"{escape(word)} <small>{most}</small>",
                               f"attention to “{word}”, at most {most}"))  # fmt: skip
        return self.pictures(tiles, "block words wide")

    def masks(self) -> str:
        """The mask as it grows over the steps."""
        s, shown = self.story, small(self.story.picture)
        if all(one.mask is None for one in s.masks):
            return ""
        frames = []
        for k, mask in s.masks:
            where = f"after step {s.steps - k + 1} of {s.steps}"
            share = "everywhere" if mask is None else f"{mask.mean():.0%} of the picture"
            share = share.replace("%", " %")
            drawn = shown if mask is None else masked(shown, mask)
            seen = Shown(drawn, "", f"where the edit shows {where}: {share}")
            frames.append(Frame([seen], f"{where.capitalize()}: {share}", f"{where}, {share}"))
        return self.frames("Step down", frames, start=len(frames) - 1, kind="narrow")

    def understood(self) -> str:
        """What auto read off the picture, and the mask of it."""
        edited, by = self.story.edited, self.story.edited.settings
        prompt = " ".join(f"<mark>{escape(w)}</mark>" if new else escape(w)
                          for w, new in edited.words)  # fmt: skip
        new = ", ".join(w for w, is_new in edited.words if is_new) or "nothing"
        mask = ""
        if edited.mask is not None:
            share = f"{edited.mask.mean():.0%} of the picture".replace("%", " %")
            label = f"auto’s mask: where the noise predicted for the two texts differs, {share}"
            mask = self.pictures([
                Shown(small(self.story.picture), "the picture", "the picture"),
                Shown(masked(small(self.story.picture), edited.mask), label, label),
            ], "block")  # fmt: skip
        return f"""<div class="aside"><h3>What auto understood</h3>
<p>A network that predicts noise also judges texts: the one that describes a picture predicts its noise best. So each word of the prompt was left out and exchanged, and what makes the prediction better is taken for what is there.</p>
<p class="read">The picture shows “{escape(by.source or "")}”.<br>It should become “{prompt}”.</p>
<p>New: <b>{escape(new)}</b>. From that follow its settings here: {by.steps} steps, encode ratio {by.encode_ratio:g}, ω = {by.guidance:g}, η = {by.eta:g}.</p>
{mask or "<p>A new place shows everywhere: there is no mask.</p>"}
{self.equation("reading")}</div>"""  # noqa: E501

    def equation(self, name: str) -> str:
        """An equation's lines, with links to what computes it."""
        found: Equation = EQUATIONS[name]
        links = ", ".join(
            f'<a href="{escape(self.place.base)}{path}"><code>{function}</code></a>'
            for function, path in found.functions
        )
        return f"""<div class="equation"><div class="lines">{"".join(found.lines)}</div>
<p class="computed">computed by {links}<br>
in Python: <code>{escape(found.python)}</code></p></div>"""

    def record(self) -> str:
        """The edit's record, as its PNG would carry it."""
        rows = []
        for name, value in self.story.edited.record.items():
            if name == "settings":
                said = json.loads(value)
                usual = vars(ptinv.Settings())
                other = {n: v for n, v in said.items() if v != plain(usual[n])}
                value = ", ".join(f"{n} {v}" for n, v in other.items()) or "the defaults"
            rows.append(f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>')
        return ('<details open class="record"><summary>Settings, model, seed: what the edit’s PNG '
                f'carries</summary><div class="scrolled"><table>{"".join(rows)}</table></div>'
                "</details>")  # fmt: skip

    def image(self, shown: Shown) -> str:
        """A picture in the text of the page."""
        picture = shown.picture
        if id(picture) not in self.written:
            file = BytesIO()
            picture.save(file, "WEBP", quality=self.quality)
            self.written[id(picture)] = picture, base64.b64encode(file.getvalue()).decode()
        data = self.written[id(picture)][1]
        size = f'width="{picture.width}" height="{picture.height}"'
        return f'<img src="data:image/webp;base64,{data}" {size} alt="{escape(shown.words)}">'

    def pictures(self, shown: Iterable[Shown], kind: str = "", columns: int = 2) -> str:
        """Pictures side by side."""
        cells = []
        for one in shown:
            label = f'<span class="label">{one.label}</span>' if one.label else ""
            cells.append(f"<div>{self.image(one)}{label}</div>")
        columns = min(columns, len(cells))
        style = "" if "words" in kind else f' style="--columns: {columns}"'
        return f'<div class="pictures {kind}"{style}>{"".join(cells)}</div>'

    def frames(
        self, label: str, frames: list[Frame], chart: str = "", start: int = 0, kind: str = ""
    ) -> str:
        """What a slider moves through; chart: the drawing whose marker goes with it."""
        parts = []
        for frame in frames:
            several = len(frame.pictures)
            x = "" if frame.x is None else f' data-x="{frame.x}"'
            inner = self.pictures(frame.pictures, "four" if several > 2 else "", several)
            parts.append(f'<figure class="frame"{x} data-value="{escape(frame.value)}">{inner}'
                         f"<figcaption>{frame.caption}</figcaption></figure>")  # fmt: skip
        data = f'data-label="{label}" data-chart="{chart}" data-start="{start}"'
        return f'<div class="frames {kind}" {data}>{"".join(parts)}</div>'


def name_of(walk: Walk) -> str:
    """A walk's name in a drawing."""
    return "tuned" if walk.tuned else f"ω = {walk.guidance:g}"


def db(number: float) -> str:
    """A ratio in decibels."""
    return f"{number:.2f} dB" if math.isfinite(number) else "∞ dB"


def some_ticks(steps: int) -> list[int]:
    """Steps to write below an axis."""
    return sorted({round(i * steps / 4) for i in range(5)})


def plain(value: object) -> object:
    """A setting as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def table(title: str, head: list[str], rows: list[list[str]]) -> str:
    """Numbers behind a drawing, folded away."""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{cell}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    inner = f"<thead><tr>{heads}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f"""<details><summary>{title}, as numbers</summary>
<div class="scrolled"><table>{inner}</table></div></details>"""
