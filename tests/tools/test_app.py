"""The page without a browser: what it keeps and shares, stops, forgets and restores; bad starts."""

import asyncio
import gc
import shutil
import socket
import sys
import threading
import types
import warnings

import app
import numpy as np
import pytest
import torch
from local_app import edits, options
from local_app.desk import KEPT, Desk, Session
from local_app.edits import Start, Stopped, Wanted, Watch, source_with, words_of
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv.methods.request import opened
from ptinv.storage.provenance import Recipe

STEPS = 4
FEW = {"steps": STEPS, "encode_ratio": 1.0}


def wanted(picture, method="pti", prompt=PROMPT, **given):
    return Wanted(opened(picture), prompt, method, FEW | given)


def watch():
    return Watch(lambda share, text: None)


SLOW = pytest.param("direct", marks=pytest.mark.slow)


@pytest.mark.parametrize("method", ["auto", "pti", SLOW, "sdedit"])
def test_another_strength_only_samples_again_and_is_what_python_makes(
    small_model, picture, unet_calls, method
):
    first = wanted(picture, method)
    start = edits.begin(small_model, first, watch())
    edits.make(small_model, start, first, watch())
    again = wanted(picture, method, eta=0.3) if "eta" not in first.row.ignored else first
    before = len(unet_calls)
    assert edits.begin(small_model, again, watch(), start) is start
    result, _ = edits.make(small_model, start, again, watch())
    draws = again.settings.mask_draws if "difference" in again.settings.mask_names else 0
    masked = -(-draws // 4)  # four noises a call, where what is new is no place
    assert len(unet_calls) - before in (STEPS, STEPS + masked)
    alone = ptinv.edit(small_model, picture, PROMPT, method, **again.given)
    assert result.picture.tobytes() == alone.tobytes()


def test_a_start_serves_what_does_not_change_it(small_model, picture):
    start = edits.begin(small_model, wanted(picture, "auto"), watch())
    serves = [{}, {"eta": 0.2}, {"guidance": 2.0}, {"mask": None}, {"source": start.source}]
    other = [{"seed": 1}, {"steps": 5}, {"source": "a red boat"}, {"method": "fast"}]
    other += [{"prompt": OTHER_PROMPT}]
    for how in serves:
        assert start.serves(wanted(picture, **{"method": "auto"} | how)), how
    for how in other:
        assert not start.serves(wanted(picture, **{"method": "auto"} | how)), how
    assert not start.serves(wanted(picture.transpose(Image.Transpose.ROTATE_180), "auto"))
    tuned = Start(wanted(picture), start.inversion, [])
    assert not tuned.serves(wanted(picture, guidance=2.0))  # tuned at another


def test_what_is_looked_at_is_the_edit_s_own_mask(small_model, picture):
    for method in ("auto", "pti"):
        asked = wanted(picture, method, mask_threshold=0.4, source="a red car on the grass")
        start = edits.begin(small_model, asked, watch())
        steps = ptinv.steps(small_model, picture, PROMPT, method, **asked.given)
        first = next(step.mask for step in steps if step.mask is not None)
        assert torch.equal(edits.look(small_model, start, asked, watch()), first)
    asked = wanted(picture, "ddim-global")
    start = edits.begin(small_model, asked, watch())
    assert edits.look(small_model, start, asked, watch()) is None


@pytest.mark.parametrize("method", ["auto", "pti", SLOW])
def test_a_run_stops_within_one_call_wherever_it_is(small_model, picture, unet_calls, method):
    asked, calm = wanted(picture, method), watch()
    start = edits.begin(small_model, asked, calm)
    edits.make(small_model, start, asked, calm)
    whole = len(unet_calls)
    for allowed in (1, whole // 2, whole - 1):
        unet_calls.clear()
        asks = watch()
        asks.say = lambda share, text, asks=asks, n=allowed: setattr(
            asks, "stopped", len(unet_calls) >= n
        )
        with pytest.raises(Stopped):
            edits.make(small_model, edits.begin(small_model, asked, asks), asked, asks)
        assert len(unet_calls) == allowed


@pytest.mark.parametrize("method", ["auto", "pti", "null-text", "direct", "ilvr"])
def test_progress_rises_to_its_end_as_expected(small_model, picture, method):
    said, asked = [], wanted(picture, method, inner_steps=2, source="a red car on the grass")
    seen = Watch(lambda share, text: said.append((share, text)))
    start = edits.begin(small_model, asked, seen)
    expected = seen.rows
    edits.make(small_model, start, asked, seen)
    assert 0.5 < expected / seen.done < 2
    assert said[-1][0] == pytest.approx(1) and said[-1][1].endswith(" · 0 s left")
    assert f"sampling, step {STEPS} of {STEPS}" in said[-1][1]


def test_remarks_are_the_page_s_and_no_warning_s(small_model, picture, remarks):
    start = edits.begin(small_model, wanted(picture, "auto"), watch())
    assert any(remark.startswith("the picture shows: ") for remark in start.remarks)
    assert remarks.messages == []


# what an edit is about


def about(model, prompt, source, method="auto", **given):
    """A start whose picture shows what a text says."""
    inversion = types.SimpleNamespace(settings={"source": source})
    return Start(Wanted(None, prompt, method, given), inversion, [])


def lit_words(model, start):
    """Words of the prompt, and which are lit."""
    return words_of(model, start, start.wanted)


@pytest.mark.parametrize(
    "prompt, source, shown, new",
    [
        ("two pink dogs in the snow", "two pink birds in the snow", "two pink dogs snow", "dogs"),
        ("a red car on the sand", "a red car", "red car sand", "sand"),
        ("a red car", "a red car", "red car", ""),
    ],
)
def test_the_words_that_are_new_are_lit(small_model, prompt, source, shown, new):
    words, lit = lit_words(small_model, about(small_model, prompt, source))
    assert " ".join(words) == shown and " ".join(words[i] for i in lit) == new


def test_the_words_that_a_mask_follows_are_lit(small_model):
    words, lit = lit_words(small_model, about(small_model, "a red car on the grass", "", "pti"))
    assert [words[i] for i in lit] == ["red", "car"]
    start = about(small_model, "a red car on the grass", "", "pti", focus="grass")
    assert [words[i] for i in words_of(small_model, start, start.wanted)[1]] == ["grass"]


@pytest.mark.parametrize(
    "new, corrected",
    [
        ([2], "two pink birds in the snow"),  # as it was read
        ([], "two pink dogs in the snow"),
        ([1, 2], "two birds in the snow"),
        ([2, 3], "two pink birds in the"),
        ([0], "pink dogs in the snow"),
    ],
)
def test_a_click_on_a_word_corrects_what_the_picture_shows(small_model, new, corrected):
    start = about(small_model, "two pink dogs in the snow", "two pink birds in the snow")
    assert source_with(small_model, start, new) == corrected


def test_words_of_one_change_are_corrected_one_by_one_where_they_pair(small_model):
    start = about(small_model, "a blue boat on the sand", "a red car on the sand")
    assert source_with(small_model, start, [0]) == "a red boat on the sand"
    assert source_with(small_model, start, [1]) == "a blue car on the sand"


def test_a_mask_is_painted_over_and_read_back():
    mask = torch.zeros(1, 1, 8, 12)
    mask[..., 2:5, 3:7] = 1
    shown = edits.layer(mask, (48, 32))
    read = np.asarray(edits.brushed([shown], (48, 32))) > 0
    assert read[8:20, 12:28].all() and not read[:4].any() and not read[:, 40:].any()
    stroke = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    stroke.paste((230, 40, 40, 255), (80, 0, 96, 8))
    both = np.asarray(edits.brushed([shown, stroke], (48, 32))) > 0
    assert both[:4, 40:].all() and both[8:20, 12:28].all()
    assert edits.brushed([Image.new("RGBA", (9, 9), (255, 0, 0, 0))], (48, 32)) is None
    assert edits.brushed([], (48, 32)) is None


# settings as text

VALUES = {
    "steps": 30, "encode_ratio": 0.55, "lr": 1e-5, "seed": 2**60 + 1, "negative": "snow, trees",
    "guidance_gate": (0.25, 1.0), "cross_replace": {"default": 0.3, "car": (0.2, 0.6)},
    "reweight": {"yellow": 2.5, "car": 0.0}, "self_replace": (0.1, 0.5), "sampler": "ancestral",
    "mask_from": "attention*~difference", "paste_back": True, "mask": None, "focus": "yellow car",
}  # fmt: skip


def test_every_setting_has_a_field_and_is_read_as_it_is_typed():
    for name, value in VALUES.items():
        assert options.read(name, options.typed(name, value)) == value, name
    fields = {*options.USEFUL, *options.REST, *options.OWN, *options.IDLE}
    assert fields == {*vars(ptinv.Settings())}
    untouched = {n: options.typed(n, options.EMPTY.get(n, "")) for n in fields}
    assert options.given(untouched) == {}
    assert options.given({"steps": "", "lr": None, "paste_back": False, "seed": " 0 "}) == {
        "seed": 0
    }


@pytest.mark.parametrize(
    "name, typed, reason",
    [
        ("steps", "many", "steps must be a whole number from 1 to 500, not 'many'"),
        ("steps", "2.5", "steps must be a whole number"),
        ("guidance", "-1", "guidance must be a number from 0 to 100, not -1.0"),
        ("reweight", "car", "reweight: 'car' is not WORD=FACTOR"),
        ("guidance_gate", "first", "guidance_gate: 'first' is not a share of the steps"),
        ("focus", "boat", '"boat" is not in the prompt'),
    ],
)
def test_a_bad_setting_is_refused_in_the_api_s_sentence(small_model, picture, name, typed, reason):
    with pytest.raises(ptinv.InputError, match=reason):
        asked = wanted(picture, **options.given({name: typed}))
        edits.begin(small_model, asked, watch())


@pytest.mark.parametrize(
    "method, given",
    [
        ("auto", {}),
        ("auto", {"eta": 0.9, "source": "a red car on the grass"}),
        ("pti", {"eta": 0.4, "negative": "snow", "reweight": {"car": 2.0}}),
        ("direct", {"cross_replace": {"car": (0.2, 0.6), "default": 0.5}}),
        ("pti", {"mask": None}),
        ("ilvr", {"low_pass": 2}),
    ],
)
def test_a_record_brings_back_fields_that_make_the_same(
    small_model, picture, tmp_path, method, given
):
    path = tmp_path / "a.png"
    made = ptinv.result(small_model, picture, PROMPT, method, **FEW | given)
    made.save(path)
    recipe, chosen = options.recorded(path)
    assert (recipe.prompt, recipe.method) == (PROMPT, method)
    typed = {name: options.typed(name, value) for name, value in chosen.items()}
    asked = Wanted(opened(picture), PROMPT, method, options.given(typed))
    again, _ = edits.make(small_model, edits.begin(small_model, asked, watch()), asked, watch())
    again.save(tmp_path / "b.png")
    assert again.picture.tobytes() == made.picture.tobytes()
    assert Recipe.read(tmp_path / "b.png").settings == recipe.settings


def test_pictures_without_an_edit_s_record_bring_none(small_model, picture, tmp_path):
    picture.save(tmp_path / "plain.png")
    assert options.recorded(tmp_path / "plain.png") is None


# one model, many people


def test_files_are_those_of_the_history_and_go_with_the_session(small_model, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    asked = wanted(picture, "ddim-global")
    start = edits.begin(small_model, asked, watch())
    result, _ = edits.make(small_model, start, asked, watch())
    for _ in range(KEPT + 3):
        session.add(session.picture, result)
    assert len(session.history) == KEPT
    assert {*session.folder.iterdir()} == {session.picture, *(e.after for e in session.history)}
    assert session.history[0].after.name.startswith("a-yellow-car-on-the-grass-")
    session.take(None)
    assert session.history[0].before.exists()  # an edit of the history was made of it
    del session
    gc.collect()
    assert not any(tmp_path.iterdir())


def test_an_edit_s_file_has_a_name_that_it_can_have(small_model, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    for prompt in ("d" * 300, "ein Bürö / 猫 <b>", "猫"):
        asked = wanted(picture, "ddim-global", prompt)
        start = edits.begin(small_model, asked, watch())
        session.add(session.picture, edits.make(small_model, start, asked, watch())[0])
    assert [len(e.after.stem) for e in session.history] == [8, 11, 82]
    assert all(e.after.parent == session.folder for e in session.history)


def test_a_picture_that_goes_while_an_edit_is_saved_takes_no_file_of_it(tmp_path, picture):
    session = Session(str(tmp_path))
    session.take(opened(picture))

    class Result:
        request = types.SimpleNamespace(prompt=PROMPT)

        def save(self, path):
            path.write_text("half of it")
            session.take(opened(picture))
            path.write_text(path.read_text() + " and the rest")

    assert session.add(session.picture, Result()) is None
    assert session.history == [] and {*session.folder.iterdir()} == {session.picture}


def test_one_has_the_model_at_a_time_and_stops_no_one_else(small_model):
    desk, order = Desk(small_model), []
    seat = desk.seat("two", print)
    with desk.seat("one", print) as first:
        other = threading.Thread(target=lambda: order.append(seat.__enter__()))
        other.start()
        other.join(0.2)
        assert other.is_alive() and order == []
        desk.stop("two")
        assert not first.stopped
        desk.stop("one")
        assert first.stopped
    other.join(10)
    desk.stop("two")
    assert order[0].stopped


@pytest.fixture(scope="module")
def page(small_model, tmp_path_factory):
    """The page's parts, without a browser."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")  # what its libraries say of each other as they start
        pytest.importorskip("gradio", reason='the page needs pip install -e ".[app]"')
        loop = asyncio.new_event_loop()
        patch.setattr(asyncio, "new_event_loop", lambda: loop)  # Gradio would leave several
        from local_app.page import Page

        made = Page(small_model, str(tmp_path_factory.mktemp("page")))
    yield made
    asyncio.set_event_loop(None)
    loop.close()


def asked_of(page, session, **given):
    """What the browser sends of the fields."""
    said = {"prompt": PROMPT, "method": "pti", "source": "", "eta": 0.9, "mask": None} | given
    fields = {"steps": "2", "encode_ratio": "1"}
    own = [said[name] for name in ("prompt", "method", "source", "eta", "mask")]
    return [session, *own, *(said.get(n, fields.get(n, "")) for n in page.fields)]


PERSON = types.SimpleNamespace(session_hash="somebody")


def run(handler, asked):
    """All that a run shows, the later over the earlier."""
    updates = {}
    for more in handler(PERSON, lambda share, desc: None, *asked):
        updates |= more
    return updates


@pytest.mark.slow
def test_fifty_edits_take_no_more_memory_than_ten(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    tensors = {}
    for i in range(50):
        asked = asked_of(page, session, prompt=[PROMPT, OTHER_PROMPT][i % 2], eta=i / 50)
        assert page.result in run(page.on_edit, asked)
        if i in (9, 49):
            gc.collect()
            tensors[i] = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
    assert tensors[49] <= tensors[9]
    assert len([*session.folder.iterdir()]) == KEPT + 1


def test_the_page_says_what_is_wrong_and_goes_on(page, picture, tmp_path, recwarn):
    session = Session(str(tmp_path))
    said = run(page.on_edit, asked_of(page, session))
    assert said == {page.note: "there is no picture yet; give one, or take an example"}
    session.take(opened(picture))
    said = run(page.on_edit, asked_of(page, session, prompt=" "))
    assert said[page.note].startswith("the prompt is empty")
    (tmp_path / "notes.png").write_text("a yellow car")
    said = page.on_upload(session, {"path": str(tmp_path / "notes.png")})
    assert said[page.note].startswith("notes.png: the file is not a picture")
    assert said[page.picture] == str(session.picture)  # what was there stays
    assert page.result in run(page.on_edit, asked_of(page, session))


def test_a_picture_that_another_model_made_restores_its_settings_and_says_so(
    page, picture, tmp_path, monkeypatch
):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    run(page.on_edit, asked_of(page, session))
    file = {"path": str(shutil.copy(session.history[0].after, tmp_path / "edit.png"))}
    said = page.on_upload(session, file)
    assert said[page.prompt] == PROMPT and "Another model" not in said[page.note]
    monkeypatch.setattr("local_app.page.model_hash", lambda model: "tensors:0")
    said = page.on_upload(session, file)
    assert said[page.prompt] == PROMPT and "Another model made it" in said[page.note]


def test_another_sentence_forgets_what_was_read_off_the_picture_and_not_what_was_typed(
    page, picture, tmp_path
):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    run(page.on_edit, asked_of(page, session, source="a bird"))
    assert page.on_prompt(session, "a bird in the snow")[0] != ""
    assert page.on_prompt(session, session.start.source)[0] == ""


def test_words_that_were_corrected_stay_so_after_the_edit(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    run(page.on_edit, asked_of(page, session))
    said = run(page.on_edit, asked_of(page, session, focus="grass"))
    lit = said[page.words]
    assert [lit["choices"][i][0] for i in lit["value"]] == ["grass"]


def test_an_example_and_an_earlier_edit_start_from_their_own_sentence(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    run(page.on_edit, asked_of(page, session))
    run(page.on_edit, asked_of(page, session, method="sdedit"))
    assert page.on_history(session, 1)[page.method] == "pti"
    run(page.on_eta, asked_of(page, session, eta=0.3))  # samples again without a press of Edit
    recipe = Recipe.read(session.history[0].after)
    assert (recipe.method, recipe.settings.eta, len(session.history)) == ("pti", 0.3, 3)
    assert page.on_example(session, 1)[page.fields["focus"]] == ""


def test_a_mask_that_is_wiped_is_a_picture_to_brush_on(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    run(page.on_edit, asked_of(page, session))
    shown = page.on_no_mask(session)[page.mask]["value"]
    assert shown["background"] and not shown["layers"] and session.painted == []


@pytest.mark.parametrize("method", list(ptinv.METHODS))
def test_a_method_shows_what_it_reads(page, tmp_path, method):
    said = page.on_method(Session(str(tmp_path)), method)
    for field, update in zip(page.fields.values(), said, strict=False):
        known = vars(field)
        assert set(update) - {"__type__"} <= {*known, "visible"}, field


def test_a_strength_before_any_edit_is_noted_and_then_kept(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    assert [*run(page.on_eta, asked_of(page, session, eta=0.4))] == [page.note]
    run(page.on_edit, asked_of(page, session, eta=0.4))
    assert Recipe.read(session.history[0].after).settings.eta == 0.4
    run(page.on_eta, asked_of(page, session, eta=0.2, prompt="something else by now"))
    recipe = Recipe.read(session.history[0].after)
    assert (recipe.settings.eta, recipe.prompt) == (0.2, PROMPT)


def test_a_brushed_mask_is_the_edit_s_until_one_looks_again(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    layer = Image.new("RGBA", (96, 64), (0, 0, 0, 0))
    layer.paste((230, 40, 40, 255), (0, 0, 48, 64))
    mask = {"layers": [layer]}
    page.masked(session, picture, torch.ones(1, 1, 8, 12))
    shown = run(page.on_edit, asked_of(page, session, mask=mask, paste_back=True))
    assert page.mask not in shown  # what was brushed stays as it is
    made = np.asarray(Image.open(session.history[0].after))
    assert (made[:, 32:] == np.asarray(picture)[:, 32:]).all() and (made != picture).any()
    looked = run(page.on_look, asked_of(page, session, mask=mask))[page.mask]["value"]
    run(page.on_edit, asked_of(page, session, mask={"layers": looked["layers"]}))
    assert not Recipe.read(session.history[0].after).mask_hash


def test_words_on_the_page_are_words_and_nothing_else(page, picture, tmp_path, recwarn):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    prompt = "a <b>car</b> & *boats*"
    updates = page.on_edit(
        PERSON, lambda share, desc: None, *asked_of(page, session, prompt=prompt)
    )
    note, _ = [update[page.note] for update in updates if page.note in update]
    assert "&lt;" in note and "<b>" not in note and "<br>made in" in note
    said = run(page.on_edit, asked_of(page, session, focus="<img src=x>"))[page.note]
    assert "&lt;" in said and "<img" not in said


def test_a_field_shows_the_default_of_its_method(page):
    for method in ("auto", "sdedit", "edit-friendly", "auto"):
        shown = dict(zip(page.fields, page.on_method(None, method), strict=False))
        own = ptinv.METHODS[method].own
        assert shown["mask_from"]["placeholder"] == (own("mask_from") or "")
        assert shown["encode_ratio"]["placeholder"] == str(own("encode_ratio"))
        assert "placeholder" not in shown["mask"]


def test_an_empty_mask_is_no_edit_of_everything(page, picture, tmp_path, recwarn):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    page.masked(session, picture, torch.ones(1, 1, 8, 12))
    said = run(page.on_edit, asked_of(page, session, mask={"layers": []}))
    assert said[page.note].startswith("nothing is brushed")


@pytest.mark.parametrize("method", ["pti", "ddim-global"])  # with a mask of its own, and without
def test_a_mask_that_nobody_touched_is_not_a_person_s(page, picture, tmp_path, method):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    for _ in range(2):
        seen = run(page.on_edit, asked_of(page, session, method=method))[page.mask]["value"]
        mask = {"layers": seen["layers"]}  # as the browser sends it back
        run(page.on_edit, asked_of(page, session, method=method, mask=mask, guidance="3"))
        assert not Recipe.read(session.history[0].after).mask_hash
    page.on_prompt(session, "")  # the mask of another sentence goes
    run(page.on_edit, asked_of(page, session, method=method, mask={"layers": []}))
    assert not Recipe.read(session.history[0].after).mask_hash


def test_an_edit_of_a_picture_that_is_gone_is_not_shown(page, picture, tmp_path):
    session = Session(str(tmp_path))
    session.take(opened(picture))
    going = page.on_edit(PERSON, lambda share, desc: None, *asked_of(page, session))
    next(going)
    session.take(opened(picture.rotate(180)))
    assert [[*updates] for updates in going] == [[page.note]]
    assert session.history == [] and session.last is None


# the program


@pytest.mark.parametrize(
    "words, reason",
    [
        (["--model", "nowhere"], "nowhere"),
        (["--port", "0"], "--port must be a whole number from 1 to 65535"),
        (["--host", "no such host"], "cannot listen at no such host:"),
        (["--dtype", "int8"], "int8"),
    ],
)
def test_a_bad_start_ends_in_a_line(capsys, words, reason):
    pytest.importorskip("gradio")
    assert app.main(words) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("app.py: ") and reason in said.err
    assert len(said.err.splitlines()) == 1


def test_a_taken_port_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert app.main(["--port", str(port)]) == 2
    assert f"cannot listen at 127.0.0.1:{port} (Address already in use)" in capsys.readouterr().err


def test_without_gradio_it_says_how_to_install_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    for name in [n for n in sys.modules if n in ("local_app.page", "local_app.looks")]:
        monkeypatch.delitem(sys.modules, name)
    assert app.main([]) == 2
    assert 'pip install -e ".[app]"' in capsys.readouterr().err
