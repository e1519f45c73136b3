"""A researcher's day: what one builds on the package, without reading its source."""

import copy
import gc
import pickle
import threading
import warnings
import weakref
from dataclasses import replace
from typing import get_type_hints

import numpy as np
import pytest
import torch
from commands import ptinv_
from PIL import Image
from small import OTHER_PROMPT, PROMPT

import ptinv
from ptinv import ddim
from ptinv.methods import request, run
from ptinv.methods.prompt_to_prompt import alignment
from ptinv.methods.words import words_of
from ptinv.settings import NAMES, Settings

STEPS = dict(steps=4, encode_ratio=1.0)
SOURCE = "a red car on the grass"


def pixels(picture):
    return np.asarray(picture, np.int16)


def same(one, other):
    return one.size == other.size and (pixels(one) == pixels(other)).all()


@pytest.fixture(scope="module")
def inversion(small_model, picture):
    return ptinv.invert(small_model, picture, PROMPT, **STEPS)


# Writing it out oneself


def test_a_loop_of_one_s_own_is_generate_to_the_bit(small_model):
    model, w = small_model, 7.5
    null, c = model.embed(["", PROMPT]).split(1)
    z = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    for step in reversed(ddim.schedule(5)):
        eps_null, eps_c = model.predict_noise(
            torch.cat([z, z]), step.t, torch.cat([null, c])
        ).chunk(2)
        z = ddim.step(z, ddim.guide(eps_null, eps_c, w), step.alpha_from, step.alpha_to)
    assert same(model.decode(z), ptinv.generate(model, PROMPT, seed=3, steps=5))


def test_algorithm_1_written_out_is_the_package_s_to_the_bit(small_model, picture, inversion):
    model, w, beta = small_model, 7.5, 0.1
    null, c = model.embed(""), model.embed(PROMPT)
    trajectory, schedule = [model.encode(picture)], ddim.schedule(4)
    for step in schedule:
        z = trajectory[-1]
        eps = model.predict_noise(z, step.t, null)
        trajectory.append(ddim.step(z, eps, step.alpha_to, step.alpha_from))
    tuned, z = [], trajectory[-1]
    for step in reversed(schedule):
        c = c.detach().clone().requires_grad_()
        adam = torch.optim.Adam([c], lr=beta)
        eps_null, pivot = model.predict_noise(z, step.t, null), trajectory[step.k - 1]

        def land(c, z=z, step=step, eps_null=eps_null):
            eps = ddim.guide(eps_null, model.predict_noise(z, step.t, c), w)
            return ddim.step(z, eps, step.alpha_from, step.alpha_to)

        (land(c) - pivot).square().mean().backward()
        adam.step()
        tuned.insert(0, c.detach())
        with torch.no_grad():
            z = land(c)
    assert torch.equal(torch.stack(trajectory), inversion.trajectory)
    assert torch.equal(torch.stack(tuned), inversion.embeddings)


# One step at a time


def test_steps_are_the_edit_and_its_film(small_model, picture):
    made = ptinv.result(small_model, picture, PROMPT, "pti", **STEPS)
    steps = list(ptinv.steps(small_model, picture, PROMPT, "pti", **STEPS))
    assert [step.k for step in steps] == [4, 3, 2, 1]
    assert torch.equal(steps[-1].z, made.latent)
    film = [small_model.decode(step.z0) for step in steps]
    assert len({frame.tobytes() for frame in film}) == 4


def test_a_step_holds_what_it_was_made_of(small_model, picture):
    steps = list(ptinv.steps(small_model, picture, PROMPT, "pti", mask=None, **STEPS))
    for before, step in zip(steps, steps[1:], strict=False):
        assert torch.equal(step.z_from, before.z)
    for step in steps:
        guided = ddim.guide(step.eps_null, step.eps_cond, 7.5)
        assert torch.equal(step.eps, guided)
        ends = step.timestep.alpha_from, step.timestep.alpha_to
        assert torch.equal(step.z, ddim.step(step.z_from, step.eps, *ends))


def test_a_rule_of_one_s_own_sees_where_the_step_began_and_what_it_was_made_with(
    small_model, picture
):
    seen = []
    row = replace(ptinv.METHODS["pti"], after=lambda e, step: seen.append(step) or step.z)
    steps = list(ptinv.steps(small_model, picture, PROMPT, row, **STEPS))
    for rule, step in zip(seen, steps, strict=True):
        assert torch.equal(rule.z_from, step.z_from) and torch.equal(rule.eps, step.eps)


def test_stopping_the_steps_stops_the_work_and_frees_its_memory(small_model, inversion):
    calls = []
    counting = small_model.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        steps = ptinv.steps(small_model, inversion, PROMPT)
        latent = weakref.ref(next(steps).z)
        steps.close()
    finally:
        counting.remove()
    gc.collect()
    assert latent() is None and len(calls) == 1


# Inversions and methods of one's own


def test_a_row_of_one_s_own_keeps_the_inversion_s_tuning(small_model, picture):
    """Its stages are the same, so what they made is too: nothing is tuned again."""
    inversion = ptinv.invert(
        small_model, picture, PROMPT, lr=0.05, guidance=5.0, inner_steps=2, **STEPS
    )
    row = replace(ptinv.METHODS["pti"], after=lambda e, step: step.z)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the edit is about")
        mine = ptinv.result(small_model, inversion, PROMPT, row)
    used = mine.request.settings
    assert (used.lr, used.guidance, used.inner_steps) == (0.05, 5.0, 2)
    assert torch.equal(mine.latent, ptinv.result(small_model, inversion, PROMPT).latent)


def test_a_result_carries_its_record_and_again_repeats_it(
    small_model, small_folder, picture, tmp_path, monkeypatch
):
    monkeypatch.setenv("PTINV_MODEL", str(small_folder))
    picture.save(tmp_path / "picture.png")
    made = ptinv.result(small_model, picture, PROMPT, "pti", negative="blurry", eta=0.5, **STEPS)
    made.save(tmp_path / "edited.png")
    assert ptinv_("again", tmp_path / "edited.png", tmp_path / "picture.png") == 0
    again = (tmp_path / "edited-again.png").read_bytes()
    assert again == (tmp_path / "edited.png").read_bytes()


# Negative prompts and gated guidance


@pytest.mark.parametrize("method", ["pti", "ddim-global", "p2p", "null-text", "edit-friendly"])
def test_a_negative_prompt_changes_the_edit_and_an_empty_one_does_not(small_model, picture, method):
    source = {"source": SOURCE} if method in ("p2p", "null-text", "edit-friendly") else {}
    how = dict(steps=2, encode_ratio=1.0) | source
    plain, empty, negative = (
        ptinv.result(small_model, picture, PROMPT, method, negative=text, **how).latent
        for text in ("", "", OTHER_PROMPT)
    )
    assert torch.equal(plain, empty) and not torch.equal(plain, negative)


def test_the_way_up_keeps_the_empty_text_under_a_negative_prompt(small_model, picture, inversion):
    other = ptinv.invert(small_model, picture, PROMPT, negative=OTHER_PROMPT, **STEPS)
    assert torch.equal(other.trajectory, inversion.trajectory)
    assert not torch.equal(other.embeddings, inversion.embeddings)


def test_a_stored_tuning_depends_on_its_negative_prompt(small_model, inversion, tmp_path):
    with pytest.warns(ptinv.Remark, match="another negative: again, tune c_t"):
        ptinv.edit(small_model, inversion, PROMPT, negative=OTHER_PROMPT)


def test_a_negative_prompt_is_generate_s_too(small_model):
    plain, negative = (
        ptinv.generate(small_model, PROMPT, steps=2, negative=n) for n in ("", OTHER_PROMPT)
    )
    assert not same(plain, negative)


def test_guidance_on_the_middle_third_is_guidance_there_and_none_elsewhere(small_model, picture):
    how = dict(steps=6, encode_ratio=1.0, mask=None)
    steps = list(
        ptinv.steps(
            small_model, picture, PROMPT, "ddim-global", guidance_gate=(1 / 3, 2 / 3), **how
        )
    )
    for step in steps:
        guided = ddim.guide(step.eps_null, step.eps_cond, 7.5 if step.k in (3, 4) else 1.0)
        assert torch.equal(step.eps, guided)


def test_a_gate_that_is_open_is_no_gate_and_a_closed_one_no_guidance(small_model, picture):
    def latent(**how):
        return ptinv.result(small_model, picture, PROMPT, "pti", **how, **STEPS).latent

    assert torch.equal(latent(), latent(guidance_gate=1.0))
    assert torch.equal(latent(guidance_gate=0.0), latent(guidance=1.0))


# Controls of one's own


def test_a_word_s_attention_is_recorded_while_an_edit_is_made(small_model, picture):
    recorded = []

    class Recorder(ptinv.Control):
        def wants(self, place):
            return place.kind == "cross"

        def __call__(self, probabilities, place):
            recorded.append(probabilities[-1, :, :, 2].mean(dim=0))  # the target's row, token 2
            return probabilities

    # on the first two steps only: a control may be None
    method = replace(
        ptinv.METHODS["ddim-global"],
        control=lambda e: [lambda k, rows: Recorder() if k > 2 else None],
    )
    made, plain = (
        ptinv.result(small_model, picture, PROMPT, m, **STEPS).latent
        for m in (method, "ddim-global")
    )
    layers = sum("attn2.to_q" in name for name, _ in small_model.unet.named_parameters())
    assert len(recorded) == 2 * layers
    torch.testing.assert_close(made, plain, rtol=1e-4, atol=1e-4)


def test_mutual_self_attention_is_eight_lines(small_model, picture):
    """MasaCtrl (arXiv 2304.08465): the target's queries, the source's keys and values."""

    class Mutual(ptinv.Control):
        def __init__(self, rows):
            names = [row.replace("target", "source") for row in rows]
            self.source = [rows.index(name) for name in names]

        def inputs(self, q, k, v, place):
            if place.kind == "self":
                k, v = k[self.source], v[self.source]
            return q, k, v

    masactrl = replace(ptinv.METHODS["direct"], control=lambda e: [lambda k, rows: Mutual(rows)])
    how = dict(source=SOURCE, mask=None, **STEPS)
    steps = list(ptinv.steps(small_model, picture, PROMPT, masactrl, **how))
    alone = replace(ptinv.METHODS["direct"], control=lambda e: [])
    plain = list(ptinv.steps(small_model, picture, PROMPT, alone, **how))
    assert torch.equal(steps[-1].z[0], plain[-1].z[0])  # the source's own row is left alone
    assert not torch.equal(steps[-1].z[1], plain[-1].z[1])
    # with one text for both, the target's row is the source's picture under Direct's first step
    same_text = list(ptinv.steps(small_model, picture, SOURCE, masactrl, **how))
    torch.testing.assert_close(same_text[0].eps[0], same_text[0].eps[1])


@pytest.mark.slow
def test_a_compiled_unet_is_compiled_once_for_all_timesteps(small_model, picture, expected):
    graphs, calls = [], []

    def backend(graph, _):
        graphs.append(graph)
        return lambda *args: calls.append(1) or graph(*args)

    torch._dynamo.reset()
    model = replace(small_model, unet=torch.compile(small_model.unet, backend=backend))
    edited = ptinv.edit(model, picture, PROMPT, "pti", steps=20)
    assert same(edited, ptinv.edit(small_model, picture, PROMPT, "pti", steps=20))
    # 16 steps up, 3 calls of each of 16 tuning steps, 16 down; with and without gradients, one
    # row and two
    assert len(calls) == 80 and len(graphs) == 3


# Several at once


def test_four_prompts_over_four_pictures_are_one_batch(small_model, picture):
    """The README's recipe."""
    from ptinv.core.pti import ddim_inversion, interpolate, tune
    from ptinv.core.sampling import constant, last, sample

    model, prompts = small_model, [PROMPT, OTHER_PROMPT, SOURCE, "a dog"]
    images = [picture.rotate(90 * i, expand=False) for i in range(4)]
    null, target, up = model.embed(""), model.embed(prompts), ddim.schedule(4)
    with torch.no_grad():
        trajectory = ddim_inversion(model, model.encode(images), up, constant(null, null), 0.0)
        tuned = tune(model, trajectory, up[::-1], target, null).embeddings
        walk = sample(model, trajectory[-1], up[::-1], interpolate(null, tuned, target, 0.9))
        edited = model.decode(last(walk, trajectory[-1]))
    for image, prompt, latent in zip(images, prompts, edited, strict=True):
        alone = ptinv.result(model, image, prompt, "pti", mask=None, **STEPS).decoded
        assert np.abs(pixels(latent) - pixels(alone)).max() <= 1
    assert len(model.decode(list(trajectory[0].split(1)))) == 4


# What the walk of a stored inversion keeps


@pytest.mark.parametrize("method", ["ddim-edit", "diffedit", "sdedit", "pti", "npi"])
@pytest.mark.parametrize("given", [{"guidance": 3.0}, {"guidance_gate": 0.5}, {"source": SOURCE}])
def test_what_an_inversion_was_given_its_edit_keeps(small_model, picture, method, given):
    given = given | ({"source": SOURCE} if method == "npi" else {})
    inversion = ptinv.invert(small_model, picture, PROMPT, method, steps=4, **given)
    stored, fresh = (
        ptinv.result(small_model, *how).latent
        if how[0] is inversion
        else ptinv.result(small_model, *how, steps=4, **given).latent
        for how in ((inversion, PROMPT), (picture, PROMPT, method))
    )
    assert torch.equal(stored, fresh)


@pytest.mark.parametrize("method", ["direct", "p2p", "npi", "null-text", "pti-p2p"])
def test_a_source_that_is_sampled_alone_can_be_masked_and_weighed(small_model, picture, method):
    """As the only branch it is the one that masks and weights are for."""
    how = dict(steps=3, mask_from="attention", reweight={"car": 2.0})
    assert ptinv.reconstruct(small_model, picture, SOURCE, method, **how).size == picture.size


# Pictures as people have them


def test_a_picture_is_an_image_a_path_or_an_array(small_model, picture, tmp_path):
    picture.save(path := tmp_path / "picture.png")
    forms = [picture, path, str(path), np.asarray(picture)]
    edits = [ptinv.edit(small_model, form, PROMPT, "ddim-global", steps=1) for form in forms]
    assert all(same(edits[0], other) for other in edits)
    latents = [small_model.encode(form) for form in forms]
    assert all(torch.equal(latents[0], other) for other in latents)


def test_a_mask_is_too(small_model, picture, tmp_path):
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, (0, 0, 20, 20))
    mask.save(path := tmp_path / "mask.png")
    how = dict(method="ddim-global", steps=1)
    forms = [mask, path, np.asarray(mask)]
    edits = [ptinv.edit(small_model, picture, PROMPT, mask=form, **how) for form in forms]
    assert all(same(edits[0], other) for other in edits)


def test_a_path_may_be_an_inversion_s(small_model, inversion, tmp_path):
    inversion.save(path := tmp_path / "x.safetensors")
    assert same(ptinv.edit(small_model, path, PROMPT), ptinv.edit(small_model, inversion, PROMPT))


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        (None, "a picture must be a PIL image, a path, .*, not NoneType"),
        (5, "not int"),
        (np.zeros((20, 20, 3)), r"not ndarray of (float64|uint8) \("),
        (np.zeros((1, 3, 20, 20), np.uint8), r"not ndarray of (float64|uint8) \("),
        ("nothing-there.png", "nothing-there.png"),
    ],
)
@pytest.mark.parametrize("verb", ["edit", "invert", "reconstruct", "steps", "result"])
def test_anything_else_gets_a_sentence(small_model, verb, wrong, sentence):
    with pytest.raises(ptinv.InputError, match=sentence):
        getattr(ptinv, verb)(small_model, wrong, PROMPT)


def test_generate_takes_a_size_and_a_start(small_model):
    assert ptinv.generate(small_model, PROMPT, size=(96, 64), steps=1).size == (96, 64)
    assert ptinv.generate(small_model, PROMPT, size=64, steps=1).size == (64, 64)
    start = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    assert same(
        ptinv.generate(small_model, PROMPT, start=start, steps=1),
        ptinv.generate(small_model, PROMPT, seed=0, steps=1),
    )
    with pytest.raises(ptinv.InputError, match="the start must be of shape"):
        ptinv.generate(small_model, PROMPT, start=start[..., :8], steps=1)


# Nothing ignored in silence


@pytest.mark.parametrize(
    "method, options, idle",
    [
        ("sdedit", dict(eta=0.5), "eta"),
        ("ddim-global", dict(lr=0.5, eta=0.1), "lr, eta"),
        ("pti", dict(low_pass=2), "low_pass"),
        ("npi", dict(source=SOURCE, negative="blurry"), "negative"),
        ("edit-friendly", dict(source=SOURCE, sampler="ancestral"), "sampler"),
        ("direct", dict(source=SOURCE, inner_steps=3), "inner_steps"),
    ],
)
def test_an_option_that_a_method_never_reads_is_said_by_name(picture, method, options, idle):
    with pytest.warns(ptinv.Doubt, match=f"^{idle} will change nothing: edit by {method} "):
        request.request_edit(picture, PROMPT, method, **options)


def test_generate_says_so_too(small_model):
    with pytest.warns(ptinv.Doubt, match="^eta, lr will change nothing"):
        ptinv.generate(small_model, PROMPT, steps=1, eta=0.5, lr=0.5)


@pytest.mark.parametrize("method", ptinv.METHODS)
def test_what_all_methods_share_or_have_by_default_is_never_remarked_on(picture, method):
    shared = dict(steps=5, seed=3, guidance=3.0, source=SOURCE, mask_threshold=0.5, focus="car")
    own = {name: value for name, value in ptinv.METHODS[method].defaults.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request.request_edit(picture, PROMPT, method, **own | shared)


@pytest.mark.parametrize("method", ptinv.METHODS)
def test_a_method_reads_no_setting_that_it_is_said_to_ignore(small_model, picture, method):
    """And all that its cells are said to read; so the remarks are true."""
    read = set()

    class Watched(Settings):
        def __getattribute__(self, name):
            read.add(name)
            return super().__getattribute__(name)

    asked = request.request_edit(picture, PROMPT, method, source=SOURCE, steps=2, encode_ratio=1.0)
    watched = Watched(**vars(asked.settings))
    read.clear()
    told = replace(asked, settings=watched, method=replace(asked.method, strengths={}))
    edit, _ = run.begin(small_model, told)
    list(run.steps_of(asked.method, edit, edit.trajectory[-1]))
    assert asked.method.ignored.isdisjoint(read - {"negative"})  # embedded for all
    assert set(asked.method.reads) <= read


def test_a_mask_that_the_expression_leaves_out_is_refused(picture):
    mask = Image.new("L", picture.size, "white")
    with pytest.raises(ptinv.InputError, match="mask_from leaves out the file"):
        request.request_edit(picture, PROMPT, mask=mask, mask_from="attention")


def test_a_focus_that_is_not_in_the_prompt_is_refused_also_where_nothing_is_masked(
    small_model, picture
):
    with pytest.raises(ptinv.InputError, match='"boat" is not in the prompt'):
        ptinv.edit(small_model, picture, PROMPT, "pti", mask=None, focus="boat", steps=1)


def test_the_words_of_a_negative_prompt_are_checked(small_model, picture):
    with pytest.warns(ptinv.Doubt, match="the model does not know: zebra"):
        ptinv.edit(small_model, picture, PROMPT, "pti", negative="zebra", steps=1)


def test_a_stage_s_tensor_of_another_make_is_refused_where_it_is_made(small_model, picture):
    stage = ptinv.Stage("mine", ("steps",), lambda e, progress: {"halves": torch.ones(7).double()})
    method = replace(ptinv.METHODS["ddim-global"], extra=stage)
    with pytest.raises(ptinv.InputError, match="halves must be float32"):
        ptinv.invert(small_model, picture, PROMPT, method, steps=4)


def test_a_model_is_what_load_returns(picture):
    with pytest.raises(TypeError, match="the model must be what ptinv.load returns, not str"):
        ptinv.edit("weights/tiny", picture, PROMPT)


def test_only_a_given_method_is_taken(picture):
    with pytest.raises(ptinv.InputError, match="there is no method ''"):
        request.request_edit(picture, PROMPT, "")


@pytest.mark.parametrize("size", [(0, 0), (-1, 5), (64, 64, 64), 63, 4097, 80.5, "80"])
def test_a_size_that_no_picture_has_is_refused(small_model, size):
    with pytest.raises(ptinv.InputError):
        ptinv.generate(small_model, PROMPT, size=size)


# Found without reading the source


def test_the_public_names_are_shown_and_resolve():
    assert {"edit", "steps", "load", "METHODS", "Control", "ddim"} <= set(dir(ptinv))
    for name in ptinv.__all__:
        assert getattr(ptinv, name).__doc__


def test_help_has_every_option_with_its_default():
    for verb in (ptinv.edit, ptinv.Settings):
        for name in NAMES:
            assert f"    {name} = " in verb.__doc__


def test_typed_options_are_the_settings():
    options, settings = get_type_hints(ptinv.Options), get_type_hints(Settings)
    assert list(options) == list(NAMES)
    for name in set(NAMES) - {"mask"}:
        assert options[name] == settings[name], name


@pytest.mark.parametrize(
    "name, hint",
    [
        ("guidence", "did you mean guidance?"),
        ("num_inference_steps", "steps is the name here"),
        ("strength", "encode_ratio is the name here"),
        ("negative_prompt", "negative is the name here"),
        ("output_type", r"result\(…\).latent is the name here"),
        ("qqqq", r"see help\(ptinv.Settings\)"),
    ],
)
def test_an_unknown_option_gets_a_hint(small_model, picture, name, hint):
    for verb in (ptinv.edit, ptinv.invert, ptinv.reconstruct, ptinv.steps):
        with pytest.raises(TypeError, match=f"no option '{name}'; {hint}"):
            verb(small_model, picture, PROMPT, **{name: 1})


def test_what_there_is_is_shown_in_a_line(small_model, inversion):
    maps = ptinv.attention_maps(small_model, inversion, PROMPT)
    assert repr(maps) == f"AttentionMaps({PROMPT!r}, levels=[1], steps=4)"
    for thing in (small_model, inversion, maps, *ptinv.METHODS.values(), Settings()):
        assert len(repr(thing)) < 700 and "\n" not in repr(thing) and "tensor(" not in repr(thing)
    assert repr(Settings(eta=0.5, focus="car")) == "Settings(eta=0.5, focus='car')"
    assert repr(ptinv.METHODS["sdedit"]).startswith("Method('SDEdit: ")


def test_equality_and_hashes_do_not_raise(small_model, picture, inversion):
    made = ptinv.result(small_model, inversion, PROMPT)
    (step, *_) = ptinv.steps(small_model, inversion, PROMPT)
    maps = ptinv.attention_maps(small_model, inversion, PROMPT)
    for thing in (made, step, inversion, maps, small_model, *ptinv.METHODS.values(), Settings()):
        assert (
            thing == thing
            and thing != copy.copy(thing)
            or isinstance(thing, Settings | type(small_model))
        )
        hash(thing)
    assert Settings(mask=picture) == Settings(mask=picture)
    assert hash(Settings(mask=picture)) == hash(Settings(mask=picture))


def test_settings_are_ptis_by_default():
    assert ptinv.METHODS["pti"].settings() == Settings()


def test_what_was_decided_is_shown_at_the_caller_s_line_and_can_be_silenced(small_model, picture):
    with pytest.warns(ptinv.Remark, match="the edit is about: yellow car") as shown:
        ptinv.edit(small_model, picture, PROMPT, "ddim-edit", steps=1)
    assert {warning.filename for warning in shown} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ptinv.Remark)
        ptinv.edit(small_model, picture, PROMPT, "ddim-edit", steps=1)


# Wherever it runs


@pytest.fixture(scope="module")
def expected(small_model, picture):
    return ptinv.edit(small_model, picture, PROMPT, "pti", **STEPS)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_model_edits_the_same(small_model, picture, expected, copied):
    model = copied(small_model)
    assert same(ptinv.edit(model, picture, PROMPT, "pti", **STEPS), expected)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_it_works_where_gradients_are_off(small_folder, picture, expected, mode):
    with mode():
        model = ptinv.load(small_folder, device="cpu", dtype="float32")
        assert same(ptinv.edit(model, picture, PROMPT, "pti", **STEPS), expected)


def test_it_works_under_another_default_type(small_model, picture, expected):
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert same(ptinv.edit(small_model, picture, PROMPT, "pti", **STEPS), expected)
    finally:
        torch.set_default_dtype(usual)


def test_it_works_under_another_default_device(small_model, picture, expected):
    with torch.device("meta"):
        assert same(ptinv.edit(small_model, picture, PROMPT, "pti", **STEPS), expected)


def test_it_works_in_threads(small_model, picture, expected):
    made = {}

    def work(i):
        made[i] = ptinv.edit(small_model, picture, PROMPT, "pti", **STEPS)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same(made[0], expected) and same(made[1], expected)


def test_a_tokenizer_is_shared_by_threads(small_model):
    """Long prompts are cut without a state of the tokenizer's that another thread would change."""
    long, wrong = "car " * 120, []
    expected = alignment(small_model.tokenizer, long, "a red car", "refine")

    def work():
        for _ in range(20):
            made = alignment(small_model.tokenizer, long, "a red car", "refine")
            words = words_of(small_model.tokenizer, long)
            if len(words) != 120 or not torch.equal(made, expected):
                wrong.append(len(words))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
