"""Cells are what `ptinv.edit` makes, with as little work as can be, and none of it twice."""

from itertools import islice

import pytest
from world import cells
from world.cells import Way
from world.edits import edit_of
from world.edits import edits as benchmark

import ptinv
from ptinv.methods import stages

FEW = {"steps": 3}
PTI = Way("pti", "pti", FEW)
WAYS = [
    Way("pti with the source text", "pti", FEW, told=True),  # its inversion serves the next rows
    PTI,
    Way("pti without a mask", "pti", FEW | {"mask": None}),
    Way("pti with the true mask", "pti", FEW, true_mask=True),
    Way("pti from the source", "pti", FEW | {"init_embedding": "source"}, told=True),
    Way("ddim-edit", "ddim-edit", FEW),
    Way("sdedit", "sdedit", FEW),
    Way("edit-friendly", "edit-friendly", FEW, told=True),
    Way("npi", "npi", FEW, told=True),
    Way("direct", "direct", FEW, told=True),
]


@pytest.fixture(scope="module")
def edits():
    return [edit_of(*edit) for edit in islice(benchmark("test", 0), 2)]


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


def _bytes(found: dict[str, list[cells.Cell]]) -> dict[str, list[bytes]]:
    return {label: [cell.picture.tobytes() for cell in row] for label, row in found.items()}


@pytest.mark.slow
def test_cells_are_what_edit_makes_although_inversions_are_shared(small_model, edits, counted):
    found = cells.cells_of(small_model, edits, WAYS)
    # of each picture: without a text and with its own; for the target and for the source
    assert counted == {"ddim_inversion": 4, "tune": 4}
    for way in WAYS:
        for edit, cell in zip(edits, found[way.label], strict=True):
            options = way.options | ({"source": edit.caption} if way.told else {})
            options |= {"mask": edit.mask} if way.true_mask else {}
            alone = ptinv.edit(small_model, edit.picture, edit.target, way.method, **options)
            assert cell.picture.tobytes() == alone.tobytes(), way.label


def test_what_was_shared_counts_for_every_cell(small_model, edits):
    starts = {}
    first, second = (cells.made(small_model, edits[0], way, starts) for way in WAYS[:2])
    tuned = max(start.seconds for start in starts.values())
    walked = min(start.seconds for start in starts.values())
    assert 0 < walked < tuned < min(first.seconds, second.seconds)


def test_a_row_with_other_steps_has_an_inversion_of_its_own(small_model, edits, counted):
    ways = [PTI, Way("longer", "pti", {"steps": 4})]
    cells.cells_of(small_model, edits[:1], ways)
    assert counted == {"ddim_inversion": 2, "tune": 2}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_was(small_model, edits, tmp_path, monkeypatch):
    ways, make, made = [PTI, Way("sdedit", "sdedit", FEW)], cells.made, []

    def failing(model, edit, way, *rest):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append((edit, way))
        return make(model, edit, way, *rest)

    monkeypatch.setattr(cells, "made", failing)
    with pytest.raises(KeyboardInterrupt):
        cells.cells_of(small_model, edits, ways, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.setattr(cells, "made", make)
    whole = cells.cells_of(small_model, edits, ways)
    monkeypatch.setattr(cells, "made", lambda *a: made.append(a[1:3]) or make(*a))
    resumed = cells.cells_of(small_model, edits, ways, tmp_path)
    assert len(made) == 4 and made[-1] == (edits[1], ways[1])  # the missing one alone
    assert _bytes(resumed) == _bytes(whole)
    again = cells.cells_of(small_model, edits, ways, tmp_path)
    assert len(made) == 4
    assert all(cell.seconds > 0 for row in again.values() for cell in row)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        Way("pti", "pti", {"steps": 4}),
        Way("pti", "ddim-edit", FEW),
        Way("pti", "pti", FEW, told=True),
        Way("pti", "pti", FEW, true_mask=True),
    ],
)
def test_a_cell_made_otherwise_is_not_taken_from_the_folder(small_model, edits, tmp_path, way):
    cells.cells_of(small_model, edits[:1], [PTI], tmp_path)
    cells.cells_of(small_model, edits[:1], [way], tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    cells.cells_of(small_model, edits[1:], [PTI], tmp_path)  # another scene in the same place
    assert len(list(tmp_path.iterdir())) == 3
