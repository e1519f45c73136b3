"""The page that explains an edit: its numbers are the API's, and it needs nothing but itself."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import explain
import numpy as np
import pytest
import torch
from commands import contents
from explanation import curves, page
from explanation.equations import EQUATIONS
from explanation.measurements import measure
from explanation.story import some
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.core.pictures import resize
from ptinv.methods.stages import silent
from ptinv.metrics import psnr
from ptinv.storage.checkpoint import EMBEDDED

ROOT = Path(__file__).parents[2]
COMMITTED = EMBEDDED / "examples" / "explained.html"
STEPS = {"steps": 4}
PLACE = page.Place("../", "ptinv edit …", "python tools/explain.py …")
PANELS = ["seen", "up", "down", "tuning", "between", "where", "edit"]


@pytest.fixture(scope="module")
def fitted(small_model, picture):
    """The picture in the model's size, so that no verb resizes it."""
    return resize(picture, small_model.picture_size(picture.size))


@pytest.fixture(scope="module")
def tell(small_model):
    """Measures the story of an edit by the small model, in four steps unless told otherwise."""

    def told(picture, prompt=PROMPT, method=None, **options):
        return measure(small_model, picture, prompt, method, options, silent)

    return told


@pytest.fixture(scope="module")
def story(tell, fitted):
    return tell(fitted, **STEPS)


@pytest.fixture(scope="module")
def text(story):
    return page.page_of(story, PLACE)


@pytest.fixture
def explain_(small_folder):
    """Runs the program on the small model, which is given unless a test names another."""

    def run(*words):
        model = [] if "--model" in words else ["--model", str(small_folder)]
        try:
            return explain.main([*map(str, words), *model])
        except SystemExit as end:
            return end.code

    return run


class Seen(HTMLParser):
    """A page's tags, and its words."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


def table(text, title):
    """The numbers of a table, by row."""
    inner = text[text.index(f"<summary>{title}") :]
    body = inner[inner.index("<tbody>") : inner.index("</tbody>")]
    return [[float(cell) for cell in re.findall(r"<t[hd][^>]*>([^<]+)<", row)]
            for row in re.findall(r"<tr>.*?</tr>", body)]  # fmt: skip


def decibels(text, panel):
    """The dB in a panel, in order."""
    inner = text[text.index(f'<section id="{panel}"') :]
    return [float(n) for n in re.findall(r"([\d.]+) dB", inner[: inner.index("</section>")])]


def same(mask, other):
    """Whether two masks are equal, or both none."""
    return mask is other is None or torch.equal(mask, other)


def test_what_comes_back_is_what_the_verb_reconstruct_brings_back(small_model, fitted, story, text):
    inversion = ptinv.invert(small_model, fitted, PROMPT, **STEPS)

    def back(method, **options):
        return psnr(ptinv.reconstruct(small_model, inversion, PROMPT, method, **options), fitted)

    ceiling = psnr(ptinv.reconstruct(small_model, fitted, method="vae"), fitted)
    untuned = {w: back("ddim", guidance=w) for w in (0.0, 1.0, 7.5)}
    assert story.ceiling == ceiling
    assert {walk.guidance: walk.psnr for walk in story.walks[:-1]} == untuned
    assert story.walks[-1].psnr == back("pti")
    said = [round(number, 2) for number in (ceiling, *untuned.values(), back("pti"))]
    assert decibels(text, "seen")[0] == said[0]
    assert decibels(text, "down")[:3] == said[1:4]
    assert decibels(text, "tuning")[:3] == [said[4], said[3], said[0]]


def test_the_strengths_and_the_edit_are_the_verb_edit_s(small_model, fitted, story, text):
    inversion = ptinv.invert(small_model, fitted, PROMPT, **STEPS)
    for one in story.strengths:
        made = ptinv.edit(small_model, inversion, PROMPT, "pti", eta=one.eta)
        assert made.tobytes() == one.picture.tobytes()
        assert f"η = {one.eta:g}, {psnr(made, fitted):.2f} dB to the picture" in text
    assert [one.eta for one in story.strengths] == [i / 10 for i in range(11)]
    made = ptinv.result(small_model, fitted, PROMPT, **STEPS)
    assert story.edited.picture.tobytes() == made.picture.tobytes()
    assert decibels(text, "edit")[0] == round(psnr(made.picture, fitted), 2)
    assert same(story.edited.mask, made.mask)
    assert f"“{made.request.settings.source}”" in text
    assert str(made.rows) in text


def test_the_distances_and_losses_are_of_the_steps(small_model, fitted, story, text):
    inversion = ptinv.invert(small_model, fitted, PROMPT, **STEPS)
    rows = table(text, "Distances to the trajectory")
    for column, (method, options) in enumerate(
        [("ddim-global", {"guidance": w}) for w in (0.0, 1.0, 7.5)]
        + [("pti", {"eta": 0.0, "mask": None})],
        start=1,
    ):
        for step in ptinv.steps(small_model, inversion, PROMPT, method, **options):
            off = (step.z - inversion.trajectory[step.k - 1]).square().mean().sqrt()
            (row,) = (row for row in rows if row[0] == step.k - 1)
            assert row[column] == pytest.approx(float(off), abs=5.1e-5)
    assert rows[0] == [story.steps, 0, 0, 0, 0]
    target = small_model.embed(PROMPT)
    for k, untuned, before, after, moved in table(text, "Losses"):
        c = inversion.embeddings[int(k) - 1]
        assert after == pytest.approx(float(inversion.losses[int(k) - 1]), abs=5.1e-7)
        assert moved == pytest.approx(float((c - target).norm() / target.norm()), abs=5.1e-5)
        assert int(k) < story.steps or untuned == before  # the first step starts from c*
    assert story.tuned[-1].after < story.tuned[-1].before


def test_without_an_iteration_nothing_is_tuned(tell, fitted):
    for one in tell(fitted, inner_steps=0, **STEPS).tuned:
        assert one.untuned == pytest.approx(one.before) == pytest.approx(one.after, rel=1e-4)
        assert one.moved == 0


def test_the_way_up_shows_the_trajectory_and_what_its_steps_aim_at(small_model, fitted, story):
    inversion = ptinv.invert(small_model, fitted, PROMPT, **STEPS)
    assert [one.k for one in story.up] == [1, 2, 3]
    for one, timestep in zip(story.up, inversion.schedule, strict=True):
        assert one.t == timestep.t
        z, down = inversion.trajectory[one.k], inversion.trajectory[one.k - 1]
        assert one.latent.tobytes() == small_model.decode(z).tobytes()
        eps = small_model.predict_noise(down, timestep.t, small_model.embed(""))
        guess = ptinv.ddim.predict_z0(down, eps, timestep.alpha_to)
        assert psnr(one.guess, small_model.decode(guess)) > 50


def test_every_line_of_python_runs_and_has_what_its_panel_says(small_model, fitted, story, text):
    names = dict(ptinv=ptinv, model=small_model, picture=fitted, prompt=PROMPT)
    made = []
    for line in map(unescape, re.findall("in Python: <code>(.*)</code>", text)):
        assigned = line.partition(" = ")[0].isidentifier()
        exec(line if assigned else f"made = {line}", names)
        made.append(names["made"])
    round_trip, _, guided, tuned, edited, _, source = made
    assert psnr(round_trip, fitted) == story.ceiling
    assert psnr(guided, fitted) == story.walks[-2].psnr
    assert psnr(tuned, fitted) == story.walks[-1].psnr
    assert edited.tobytes() == story.strengths[9].picture.tobytes()
    assert source.startswith("a yellow car")
    for k, mask in story.masks:
        assert same(names["film"][story.steps - k], mask)


def test_the_page_is_whole_in_itself(text):
    seen = Seen(text)
    assert all(one["src"].startswith("data:image/webp;base64,") for one in seen.of("img"))
    assert not any("src" in attributes for tag, attributes in seen.tags if tag != "img")
    assert not any("href" in attributes for tag, attributes in seen.tags if tag != "a")
    assert not re.search(r"url\(|@import|@font-face|fetch\(|XMLHttp|import\(", text)
    assert [one["id"] for one in seen.of("section")] == PANELS
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in seen.of("a"):
        if attributes["href"].startswith("#"):
            assert attributes["href"][1:] in ids


def test_whatever_is_seen_is_said_in_words_too(text):
    seen = Seen(text)
    assert all(one["alt"].strip() for one in seen.of("img"))
    assert all(one["aria-label"].strip() for one in seen.of("svg"))
    assert all(one["alttext"].strip() for one in seen.of("math"))
    assert [one["aria-labelledby"] for one in seen.of("section")] == [f"{p}-title" for p in PANELS]
    assert all("data-value" in one for one in seen.of("figure") if one.get("class") == "frame")


def test_each_panel_has_an_equation_whose_functions_are_where_the_links_lead(text):
    sections = re.split(r"<section ", text)[1:]
    assert all("<math" in section for section in sections[:6])
    for name, equation in EQUATIONS.items():
        assert all(line in text for line in equation.lines), name
        for function, path in equation.functions:
            assert f'<a href="../{path}"><code>{function}</code></a>' in text
            source = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"def {function.rpartition('.')[2]}\(", source)


def test_what_a_user_typed_is_words_and_nothing_else(tell, fitted):
    prompt = 'a <b>car</b> & "boat" $prompt'
    text = page.page_of(tell(fitted, prompt, "pti", steps=2), PLACE)
    assert (
        "<b>car" not in text and "“a &lt;b&gt;car&lt;/b&gt; &amp; &quot;boat&quot; $prompt”" in text
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "method, options",
    [
        ("pti", {"eta": 0.75, "guidance": 1.0, "mask": None}),
        ("pti", {"guidance": 0.5, "negative": "grass"}),
        ("pti", {"encode_ratio": 0.25, "guidance_gate": (0.0, 0.5), "reweight": {"car": 2.0}}),
        ("sdedit", {"sampler": "ancestral"}),
        ("p2p", {"source": OTHER_PROMPT}),
    ],
)
def test_an_edit_by_any_method_has_its_page(tell, fitted, method, options):
    story = tell(fitted, method=method, **STEPS | options)
    text = page.page_of(story, PLACE)
    assert f"The edit was made by <code>{method}</code>" in text
    assert not re.search(r"\bnan\b|\$[a-z_]", re.sub(r"<script>.*?</script>", "", text, flags=re.S))
    assert [walk.tuned for walk in story.walks].count(True) == 1
    w = story.settings.guidance
    assert {0.0, 1.0, w, w if w > 1 else 7.5} == {walk.guidance for walk in story.walks}
    assert f"untuned, ω = {story.settings.guidance:g}, " in text
    assert 0.9 in [one.eta for one in story.strengths]
    assert text.count(f"method=&quot;pti&quot;, eta={story.settings.eta:g}") == 2  # edit and masks


@pytest.mark.slow
@pytest.mark.parametrize("made_by", ["pti", "ddim-global", "sdedit"])
def test_an_inversion_tells_the_story_of_its_picture(small_model, tell, fitted, made_by, story):
    again = tell(ptinv.invert(small_model, fitted, PROMPT, made_by, **STEPS), **STEPS)
    assert again.edited.method == made_by
    larger = ptinv.invert(small_model, fitted, PROMPT, made_by, size=64, steps=2)
    told = tell(larger, steps=2)
    size = small_model.sized((64, 64)).picture_size(fitted.size)
    assert {told.picture.size, told.edited.picture.size, told.up[0].guess.size} == {size}
    assert [walk.psnr for walk in again.walks] == [walk.psnr for walk in story.walks]
    assert again.tuned == story.tuned


def test_a_page_of_512_pixels_stays_below_8_mb(story):
    """Even of pictures that are nothing but noise, which hardly compress."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    grainy = Image.fromarray(noise)
    half = grainy.resize((256, 256))
    ks = some(40)
    up = [story.up[0]._replace(k=k, latent=half, guess=grainy) for k in ks]
    walks = [walk._replace(distances=[0.1] * 41, frames=[half] * len(ks), picture=grainy)
             for walk in story.walks]  # fmt: skip
    large = replace(
        story,
        picture=grainy,
        round_trip=grainy,
        up=up,
        walks=walks,
        tuned=[story.tuned[0]._replace(k=k) for k in range(1, 41)],
        strengths=[one._replace(picture=grainy) for one in story.strengths],
        heats=story.heats[:1] * 12,
        masks=[story.masks[-1]._replace(k=k) for k in reversed(ks)],
        edited=replace(story.edited, picture=grainy),
    )
    text = page.page_of(large, PLACE)
    assert len(Seen(text).of("img")) > 110
    assert 4_000_000 < len(text.encode()) < 8_000_000


def test_the_same_edit_makes_the_same_page_with_links_to_this_checkout(here, capsys, explain_):
    words = ["picture.png", PROMPT, "--method", "pti", "--steps", "2", "--quiet"]
    assert explain_(*words, "-o", "a.html") == explain_(*words, "-o", "b.html") == 0
    assert capsys.readouterr() == ("", "")
    a, b = (Path(name).read_text(encoding="utf-8") for name in ("a.html", "b.html"))
    assert a.replace("a.html", "b.html") == b
    files = [link for link in (one["href"] for one in Seen(a).of("a")) if link.endswith(".py")]
    assert len(files) > 12 and all(Path(link).is_file() for link in files)


def test_the_commands_on_the_page_repeat_edit_and_page(here, explain_, small_folder):
    elsewhere = here / "folder"
    words = "--method pti --steps 2 --reweight car=2 --guidance-gate 0:0.5 --mask mask.png".split()
    words += [
        "--size",
        "64x72",
        "--repository",
        "https://a.org/b",
        "--quiet",
        "-o",
        str(elsewhere / "a.html"),
    ]
    assert explain_("picture.png", PROMPT, *words) == 0
    text = (elsewhere / "a.html").read_text(encoding="utf-8")
    assert str(here) not in text and str(small_folder.parent) not in text
    told = Seen(text).words
    links = [one["href"] for one in Seen(text).of("a") if one["href"].endswith(".py")]
    assert links and all((ROOT / link.removeprefix("https://a.org/b/")).is_file() for link in links)
    edit, again = (next(w for w in told if w.startswith(c)) for c in ("ptinv edit", "python tools"))
    for name in ("picture.png", f"'{PROMPT}'", "--method pti", "--steps 2", "--reweight car=2.0",
                 "--guidance-gate 0.0:0.5", "--mask mask.png", "--size 64x72"):  # fmt: skip
        assert name in edit and name in again
    assert edit.endswith("-o edited.png") and again.endswith("-o a.html")


def test_a_stored_inversion_takes_the_picture_s_place(here, explain_, small_model, picture):
    ptinv.invert(small_model, picture, PROMPT, steps=2).save("x.safetensors")
    how = ["--method", "pti", "--quiet"]
    assert explain_("x.safetensors", PROMPT, *how, "-o", "a.html") == 0
    assert explain_("picture.png", PROMPT, *how, "--steps", "2", "-o", "b.html") == 0
    a, b = (Path(name).read_text(encoding="utf-8") for name in ("a.html", "b.html"))
    for seen in (r"<img [^>]*>", r"<svg .*?</svg>", r"<td>-?[\d.]+</td>"):
        assert re.findall(seen, a) == re.findall(seen, b) != []
    assert "ptinv edit x.safetensors" in a


def test_it_says_what_edit_says(here, capsys, explain_):
    words = ["picture.png", PROMPT, "--steps", "2", "--low-pass", "2", "-o", "a.html"]
    assert explain_(*words) == 0
    said = capsys.readouterr()
    assert said.out == "" and "explain.py: the picture shows: " in said.err
    assert said.err.count("low_pass will change nothing") == 1
    assert said.err.count("the picture shows") == 1 and "tuning" in said.err


REFUSED = [
    (["picture.png", " "], "the prompt is empty"),
    (["notes.txt", PROMPT], "notes.txt"),
    (["missing.png", PROMPT], "missing.png"),
    (["picture.png", PROMPT, "--steps", "0"], "steps must be"),
    (["picture.png", PROMPT, "--method", "magic"], "there is no method 'magic'"),
    (["picture.png", PROMPT, "--model", "nowhere"], "nowhere"),
    (["picture.png", PROMPT, "--method", "pti", "--focus", "dog"], '"dog" is not in the prompt'),
    (["picture.png", PROMPT, "--show-mask", "m.png"], "--show-mask"),
    (["picture.png", PROMPT, "--mask", "other.png"], "the mask is"),
]


@pytest.mark.parametrize("words, reason", REFUSED)
def test_what_cannot_be_explained_is_refused_in_a_line_and_nothing_is_written(
    here, capsys, explain_, words, reason
):
    (here / "old.html").write_text("what was here before")
    before = contents(here)
    for out in ("new.html", "old.html"):
        assert explain_(*words, "-o", out, "--quiet") == 2
        said = capsys.readouterr()
        assert said.out == "" and reason in said.err and "Traceback" not in said.err
        assert len(said.err.splitlines()) == 1
        assert contents(here) == before


@pytest.mark.parametrize("out", ["page.png", "picture.png", "nowhere/page.html", "folder"])
def test_a_page_goes_where_one_can(here, capsys, explain_, out):
    before = contents(here)
    assert explain_("picture.png", PROMPT, "-o", out) == 2
    assert capsys.readouterr().err.startswith(f"explain.py: {out}: ")
    assert contents(here) == before


def test_frames_are_even_and_have_both_ends():
    assert some(3) == [1, 2, 3] and some(12) == list(range(1, 13))
    chosen = some(40)
    assert len(chosen) == 12 and (chosen[0], chosen[-1]) == (1, 40)
    assert set(np.diff(chosen)) <= {3, 4}


def test_names_at_the_ends_of_curves_lie_apart_and_in_their_order():
    for wanted in ([100, 100, 100, 100], [30, 250, 252, 251], [240, 250, 252, 40]):
        placed = curves.apart(wanted)
        heights = sorted(placed)
        assert all(b - a >= curves.LINE - 0.01 for a, b in zip(heights, heights[1:], strict=False))
        assert max(heights) <= curves.HEIGHT
        order = sorted(range(4), key=wanted.__getitem__)
        assert [placed[i] for i in order] == heights


@pytest.mark.parametrize("values", [[0.0, 0.44], [21.3, 31.1], [5.0, 5.0], [0.0, 0.0], [0, 3e4]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_round_numbers_bound_and_part_an_axis(values, logarithmic):
    axes = curves.Axes("x", "y", logarithmic=logarithmic)
    scale = curves.y_scale([curves.Curve("", "", [0, 1], values)], axes)
    shown = [value for value in values if value > 0 or not logarithmic]
    assert all(scale.low <= value <= scale.high for value in shown)
    numbers = curves.ticks(scale)
    assert 2 <= len(numbers) <= 2 * curves.TICKS and numbers == sorted(numbers)
    assert [scale(scale.low), scale(scale.high)] == [scale.start, scale.end]


def test_no_number_stands_beside_its_axis():
    steps = curves.Curve("after", "", range(1, 6), [1.0] * 5)  # of a tuning: none is step 0
    drawn = curves.draw("losses", "", [steps], curves.Axes("k", "loss", True, x_ticks=(0, 1, 5)))
    assert re.findall(r'text-anchor="middle">([^<]+)<', drawn) == ["1", "5", "k"]


def skeleton(text):
    """A page's words that are the same for every edit."""
    style, script = (
        re.search(rf"<{tag}>.*?</{tag}>", text, re.S)[0] for tag in ("style", "script")
    )
    said = re.findall(r"<p class=.student.>.*?</p>|<h2.*?</h2>|<nav.*?</nav>", text, re.S)
    said = [re.sub(r"[\d.]+", "#", one) for one in said]
    return style, script, said, re.findall(r"<math.*?</math>", text)


def test_the_committed_page_is_one_that_the_program_makes_today(text):
    committed = COMMITTED.read_text(encoding="utf-8")
    assert skeleton(committed) == skeleton(text)
    assert len(committed.encode()) < 2_000_000
    names = Seen(committed).of("a")
    for link in (a["href"] for a in names if a["href"].endswith(".py")):
        assert (COMMITTED.parent / link).is_file()
