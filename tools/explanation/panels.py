"""The panels' figures and drawings, each made of a story's measurements."""

import math
from html import escape

from attention import over as heated
from PIL import ImageChops

from ptinv.methods.masks import over as masked

from .curves import Axes, Curve, draw, x_scale
from .figures import Album, Frame, Shown, frames, pictures, table
from .story import Story, Walk, small

MAGNIFIED = 8  # times, the difference that the round trip makes
# of the curves of walks that are not tuned, the last the darkest
KINDS = ("thin", "faint", "soft", "ink")
ETAS = Axes("η", "dB", x_ticks=(0, 0.2, 0.4, 0.6, 0.8, 1))


def drawn_panels(story: Story, album: Album) -> dict[str, str]:
    """All figures and drawings, by their names in the template."""
    s, edited = story, story.edited
    picture = Shown(s.picture, "the picture", "the picture")
    before = Shown(s.picture, "before", "the picture before the edit")
    after = Shown(edited.picture, "after", f"the picture edited: {s.prompt}")
    hero = [one._replace(picture=small(one.picture)) for one in (before, after)]
    lost = ImageChops.difference(s.picture, s.round_trip).point(lambda level: level * MAGNIFIED)
    *others, tuned = s.walks
    untuned = next(walk for walk in others if walk.guidance == tuned.guidance)
    return dict(
        hero=pictures(album, hero),
        round_trip=pictures(album, [
            picture,
            Shown(s.round_trip, f"after the round trip, {db(s.ceiling)}",
                  "the picture encoded and decoded"),
            Shown(small(lost), f"the difference, × {MAGNIFIED}",
                  f"the difference of the two, {MAGNIFIED} times as strong"),
        ], "block wide", 3),
        up=way_up(s, album),
        down=ways_down(s, album),
        reconstruction=pictures(album, [
            picture,
            Shown(tuned.picture, f"tuned, {db(tuned.psnr)}",
                  "the picture reconstructed under the tuned embeddings"),
            Shown(untuned.picture, f"untuned, ω = {untuned.guidance:g}, {db(untuned.psnr)}",
                  "what the guided walk comes back to without a tuning"),
        ], "block wide", 3),
        between=strengths(s, album),
        heats=heats(s, album),
        masks=masks(s, album),
        divider=pictures(album, [before, after], "block divider"),
        distance_chart=distance_chart(s),
        distance_table=distance_table(s),
        eta_chart=eta_chart(s),
        **tuning(s),
    )  # fmt: skip


def way_up(story: Story, album: Album) -> str:
    """The latent at the steps up, beside what each step takes the picture to be."""
    shown = []
    for one in story.up:
        where = step_of(story, one.k, one.t)
        latent = Shown(one.latent, "the latent z*<sub>k</sub>, decoded as it is",
                       f"the latent after {where}, decoded: noisier at every step")  # fmt: skip
        guess = Shown(one.guess, "f<sub>θ</sub>, the picture that the step sees in it",
                      f"the clean picture that {where} predicts")  # fmt: skip
        shown.append(Frame([latent, guess], where.capitalize(), where))
    return frames(album, "Step up", shown, start=2 * len(shown) // 3)


def ways_down(story: Story, album: Album) -> str:
    """Draws the picture that each walk believes it is going to, noisy end first."""
    x, shown = x_scale(distances(story), over_steps(story)), []
    for i, one in enumerate(reversed(story.up)):
        where = step_of(story, one.k, one.t)
        heading = [Shown(walk.frames[i], escape(name_of(walk)),
                         f"the clean picture that {where} predicts, {name_of(walk)}")
                   for walk in story.walks]  # fmt: skip
        shown.append(Frame(heading, where.capitalize(), where, x(one.k - 1)))
    return frames(album, "Step down", shown, "distances", len(shown) - 1, "wide")


def distance_chart(story: Story) -> str:
    """Each walk's distance to the trajectory."""
    ends = ", ".join(f"{walk.distances[-1]:.3f} for {name_of(walk)}" for walk in story.walks)
    title = f"Distance to the trajectory over the steps down, at the picture {ends}"
    return draw("distances", title, distances(story), over_steps(story))


def distance_table(story: Story) -> str:
    """The same as numbers."""
    columns = zip(*(walk.distances for walk in story.walks), strict=True)
    rows = [[str(story.steps - i), *(f"{x:.4f}" for x in row)] for i, row in enumerate(columns)]
    return table("Distances to the trajectory", ["k", *map(name_of, story.walks)], rows)


def distances(story: Story) -> list[Curve]:
    """Curves over k = T' … 0."""
    ks, untuned = range(story.steps, -1, -1), len(story.walks) - 1
    kinds = (*KINDS[-untuned:], "accent")
    return [Curve(name_of(walk), kind, ks, walk.distances)
            for walk, kind in zip(story.walks, kinds, strict=True)]  # fmt: skip


def over_steps(story: Story, y: str = "distance", logarithmic: bool = False) -> Axes:
    """Axes of what is drawn over a walk down."""
    ticks = sorted({round(i * story.steps / 4) for i in range(5)})
    return Axes("step k, from noise to picture", y, True, logarithmic, ticks)


def tuning(story: Story) -> dict[str, str]:
    """The drawings and numbers of Algorithm 1."""
    steps, ks = story.tuned, [one.k for one in story.tuned]
    losses = [
        Curve("under c*", "faint", ks, [one.untuned for one in steps]),
        Curve("before", "soft", ks, [one.before for one in steps]),
        Curve("after", "accent", ks, [one.after for one in steps]),
    ]
    first, last = (f"{one.before:.2g} before and {one.after:.2g} after"
                   for one in (steps[-1], steps[0]))  # fmt: skip
    moved = Curve("", "accent", ks, [one.moved for one in steps])
    far = f"Distance of each tuned embedding to the prompt’s own, {steps[0].moved:.2g} at the last"
    rows = [[str(one.k), *(f"{loss:.6f}" for loss in (one.untuned, one.before, one.after)),
             f"{one.moved:.4f}"] for one in steps]  # fmt: skip
    return dict(
        loss_chart=draw(
            "losses", f"Loss of each step by its tuning: at the noisy end {first}, at the last "
            f"step {last}", losses, over_steps(story, "loss", True)),
        moved_chart=draw("moved", far, [moved], over_steps(story, "‖cₜ − c*‖ / ‖c*‖")),
        tuning_table=table("Losses, and how far c moved",
                           ["k", "under c*", "before", "after", "moved"], rows),
    )  # fmt: skip


def strengths(story: Story, album: Album) -> str:
    """The edit by pti at every strength."""
    x, shown = x_scale(decibels(story), ETAS), []
    for one in story.strengths:
        at = f"η = {one.eta:g}"
        made = Shown(one.picture, "", f"the edit by pti at {at}")
        shown.append(Frame([made], f"{at}, {db(one.psnr)} to the picture", at, x(one.eta)))
    start = max(i for i, one in enumerate(story.strengths) if one.eta <= story.settings.eta)
    return frames(album, "η", shown, "decibels", start, "narrow")


def eta_chart(story: Story) -> str:
    """Draws each strength's PSNR to the picture."""
    first, last = (db(story.strengths[i].psnr) for i in (0, -1))
    title = f"PSNR to the picture, from {first} at η = 0 to {last} at η = 1"
    return draw("decibels", title, decibels(story), ETAS)


def decibels(story: Story) -> list[Curve]:
    """A curve over η."""
    points = [(one.eta, one.psnr) for one in story.strengths]
    return [Curve("", "accent", *map(list, zip(*points, strict=True)))]


def heats(story: Story, album: Album) -> str:
    """Each word's map over the picture."""
    shown, tiles = small(story.picture), []
    for word, heat in story.heats:
        most = percent(heat.max(), 1)
        label = f"{escape(word)} <small>{most}</small>"
        tiles.append(Shown(heated(shown, heat), label, f"attention to “{word}”, at most {most}"))
    return pictures(album, tiles, "block words wide", 0)


def masks(story: Story, album: Album) -> str:
    """The mask as it grows over the steps; nothing where there is none."""
    if all(one.mask is None for one in story.masks):
        return ""
    picture, shown = small(story.picture), []
    for k, mask in story.masks:
        where = f"after step {story.steps - k + 1} of {story.steps}"
        share = "everywhere" if mask is None else f"{percent(mask.mean())} of the picture"
        drawn = picture if mask is None else masked(picture, mask)
        seen = Shown(drawn, "", f"where the edit shows {where}: {share}")
        shown.append(Frame([seen], f"{where.capitalize()}: {share}", f"{where}, {share}"))
    return frames(album, "Step down", shown, start=len(shown) - 1, kind="narrow")


def own_mask(story: Story, album: Album) -> str:
    """The edit's own mask, where it has one."""
    edited, picture = story.edited, small(story.picture)
    if edited.mask is None:
        return "<p>A new place shows everywhere: there is no mask.</p>"
    share = f"{percent(edited.mask.mean())} of the picture"
    label = f"its mask: where the noise predicted for the two texts differs, {share}"
    plain = Shown(picture, "the picture", "the picture")
    return pictures(album, [plain, Shown(masked(picture, edited.mask), label, label)], "block")


def step_of(story: Story, k: int, t: int) -> str:
    """A step, in words."""
    return f"step {k} of {story.steps}, t = {t}"


def name_of(walk: Walk) -> str:
    """A walk's name in a drawing."""
    return "tuned" if walk.tuned else f"ω = {walk.guidance:g}"


def db(number: float) -> str:
    """A ratio in decibels."""
    return f"{number:.2f} dB" if math.isfinite(number) else "∞ dB"


def percent(share: float, digits: int = 0) -> str:
    """A share of one."""
    return f"{100 * share:.{digits}f} %"
