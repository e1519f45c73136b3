"""What is measured is what `ptinv.edit` makes, with as little work as can be, none of it twice."""

import math
import warnings

import pytest
import torch
from evaluation import datasets, edits, metrics
from evaluation.meter import Meter
from evaluation.variants import MASK, TOLD, VARIANTS, parse
from world import judge as judges

import ptinv
from ptinv.methods import stages

PTI = "pti:steps=3"
ROWS = [
    f"{PTI},{TOLD}",  # its inversion serves the next rows
    PTI,
    f"{PTI},mask=none",
    f"{PTI},mask={MASK}",
    f"{PTI},{TOLD},init_embedding=source",
    "ddim-edit:steps=3",
    f"ddim-edit:steps=3,inversion_guidance=1,{TOLD}",
    "sdedit:steps=3",
    f"edit-friendly:steps=3,{TOLD}",
    f"npi:steps=3,{TOLD}",
    f"direct:steps=3,{TOLD}",
    "auto:steps=3",
    "auto:steps=3,eta=0.5",
    f"fast:steps=3,{TOLD}",
    "npi:steps=3",
    "direct:steps=3",
]


@pytest.fixture(scope="module")
def cases():
    return datasets.drawn("test", 0, 1, ("colour", "background"))


@pytest.fixture
def counted(monkeypatch):
    """The number of pictures that were inverted and of prompts that were tuned."""
    counts = {}

    def count(name: str) -> None:
        counts[name], function = 0, getattr(stages, name)

        def counting(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        monkeypatch.setattr(stages, name, counting)

    count("ddim_inversion")
    count("tune")
    return counts


def test_edits_are_what_ptinv_makes_although_inversions_are_shared(small_model, cases, counted):
    made = []
    for case in cases:
        edit, starts = case.open(), {}
        made += [
            (edit, row, edits.make_edit(small_model, edit, parse(row), starts)) for row in ROWS
        ]
    # of each picture: without a text, and with its own for ddim-edit, and for npi and direct; for
    # auto and fast, and with the text that is read for npi and direct; tuned for two texts
    assert counted == {"ddim_inversion": 10, "tune": 4}
    for edit, row, found in made:
        variant = parse(row)
        given = variant.given(edit.caption, edit.mask)
        result = ptinv.result(small_model, edit.picture, edit.target, variant.method, **given)
        assert found.picture.tobytes() == result.picture.tobytes(), row
        assert (found.mask is None) == (result.mask is None)


def test_what_was_shared_counts_for_every_edit(small_model, cases):
    edit, starts = cases[0].open(), {}
    first, second = (edits.make_edit(small_model, edit, parse(row), starts) for row in ROWS[:2])
    alone = edits.make_edit(small_model, edit, parse(PTI), {})
    assert first.cost[1:] == second.cost[1:] == alone.cost[1:]
    # two steps up; each tuned with ∅, c_t and a look where that lands; two predictions a step down
    assert alone.cost[1:] == (2 + 2 * 3 + 2 * 2, 2)
    tuned = max(start.cost.seconds for start in starts.values())
    walked = min(start.cost.seconds for start in starts.values())
    assert 0 < walked < tuned < min(first.cost.seconds, second.cost.seconds)


def test_rows_are_counted_as_they_are_run_and_no_longer_than_asked(small_model):
    z = torch.zeros(3, 4, 16, 16)
    context = small_model.embed(["a", "b", "c"]).requires_grad_()
    meter = Meter(small_model)
    with torch.no_grad():
        meter.model.predict_noise(z, 1, context)
    eps = meter.model.predict_noise(z, 1, context)
    assert meter.so_far()[1:] == (6, 0)
    eps.sum().backward()
    assert meter.so_far()[1:] == (6, 3)
    small_model.predict_noise(z, 1, context)
    assert meter.so_far()[1:] == (6, 3)


def test_every_row_of_the_table_can_be_made(small_model, cases):
    edit, starts = cases[0].open(), {}
    labels = list(VARIANTS)
    assert len({(v.method, str(v.options)) for v in map(parse, labels)}) == len(labels)
    named = {spec.partition(":")[0] for spec in VARIANTS.values()}
    assert named == {"nothing", "truth", *ptinv.METHODS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for label in labels:
            variant = parse(label)
            if variant.method not in ("nothing", "truth"):
                variant = type(variant)(label, variant.method, variant.options | {"steps": 2})
            assert edits.make_edit(small_model, edit, variant, starts).picture.size == (128, 128)


def test_values_are_read_as_they_are_meant():
    text = "pti:eta=0.5,steps=7,mask=none,init_embedding=null,guidance_gate=0:0.5,paste_back=false"
    assert parse(text).options == dict(
        eta=0.5,
        steps=7,
        mask=None,
        init_embedding="null",
        guidance_gate=(0.0, 0.5),
        paste_back=False,
    )
    assert parse("∅").options == {"init_embedding": "null", "inner_steps": 0}
    told = parse(f"pti:{TOLD},mask={MASK}").given("a red car", "the mask")
    assert told == {"source": "a red car", "mask": "the mask"}


def test_the_bounds_are_bounds(small_model, cases):
    case = cases[0]
    bench = edits.Bench(small_model, judges.load())
    nothing, truth = (
        edits.measured(bench, edit, variant, edits.make_edit(small_model, edit, variant, {}))
        for edit, variant in ((case.open(), parse(row)) for row in ("nothing", "truth"))
    )
    assert nothing["psnr_outside"] == math.inf and nothing["ssim_outside"] == pytest.approx(1)
    assert not nothing["success"] and nothing["preservation"] and not nothing["right"]
    assert (nothing["forward"], truth["forward"], nothing["iou"]) == (0, 0, None)
    edit = case.open()
    coded = ptinv.reconstruct(small_model, edit.truth, method="vae")
    assert truth["psnr"] == metrics.psnr(coded, edit.truth)
