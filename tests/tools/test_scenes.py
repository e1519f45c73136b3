"""The procedural world of captioned pictures: repeatable, and true to its masks and captions."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scenes as command
from PIL import Image
from world import edits, scenes
from world.grounds import BACKGROUNDS
from world.things import COLOURS, KINDS

PROGRAM = Path(command.__file__)


def _run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def _files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def _drawn(split: str, count: int) -> list[scenes.Scene]:
    return [scenes.random_scene(scenes.split_rng(split, 0, i)) for i in range(count)]


def test_the_world_is_as_rich_as_promised():
    assert len(KINDS) >= 12 and len(COLOURS) >= 10 and len(BACKGROUNDS) >= 6
    drawn = _drawn("look", 300)
    assert {len(scene.things) for scene in drawn} == {1, 2, 3}
    alike = [s for s in drawn if max(Counter(t.kind for t in s.things).values()) > 1]
    assert 40 < len(alike) < 130  # several of the same kind
    overlapping = [
        scene
        for scene in drawn
        for a, b in zip(scene.things, scene.things[1:], strict=False)
        if b.x - a.x < (a.size + b.size) / 2
    ]
    assert len(overlapping) > 20


def test_a_crowded_world_has_more_of_what_is_hard_and_all_of_the_same_groups():
    for groups in (scenes.GROUPS, scenes.CROWDED):
        assert sum(groups.values()) == pytest.approx(1)
    assert scenes.GROUPS.keys() == scenes.CROWDED.keys()
    easy = (1, 0)
    assert all(scenes.CROWDED[g] > p for g, p in scenes.GROUPS.items() if g != easy)


def test_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert command.main([str(tmp_path / name), "--count", "3", "--seed", str(seed)]) == 0
    first, again, other = (_files(tmp_path / name) for name in "abc")
    assert first == again
    assert first["images/0000.png"] != other["images/0000.png"]


def test_splits_share_no_scene():
    drawn = {split: set(_drawn(split, 100)) for split in scenes.SPLITS}
    assert all(len(found) == 100 for found in drawn.values())
    assert not drawn["train"] & drawn["test"]
    assert not drawn["train"] & drawn["tune"]
    assert not drawn["tune"] & drawn["test"]


def test_drawing_on_all_cores_is_drawing_one_by_one():
    crowd = {(2, 1): 1.0}
    pixels, captions = scenes.many("look", 3, 5, scenes.caption, crowd)
    for i in range(5):
        rng = scenes.split_rng("look", 3, i)
        scene = scenes.random_scene(rng, crowd)
        assert len(scene.things) == 3
        assert np.array_equal(pixels[i].transpose(1, 2, 0), np.asarray(scenes.draw(scene)))
        assert captions[i] == scenes.caption(scene, rng)


def test_manifest_lists_pictures_that_exist_and_kinds_in_turn(tmp_path):
    assert command.main([str(tmp_path), "--count", "9"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == [edits.EDITS[i % 4] for i in range(9)]
    for line in lines:
        assert all((tmp_path / line[key]).is_file() for key in ("image", "truth", "mask"))
        assert line["caption"] != line["target"]
    listed = {line[key] for line in lines for key in ("image", "truth", "mask")}
    assert set(_files(tmp_path)) == listed | {"manifest.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", edits.EDITS)
def test_truth_differs_from_the_picture_only_inside_the_mask(kind):
    for i in range(30):
        scene, edited = edits.random_edit(kind, "look", 0, i)
        picture, truth = np.asarray(scenes.draw(scene)), np.asarray(scenes.draw(edited))
        inside = np.asarray(edits.edit_mask(scene, edited)) == 255
        differs = (picture != truth).any(axis=2)
        assert differs[inside].any()
        assert not differs[~inside].any()
        assert not inside.all()


@pytest.mark.parametrize("kind", edits.EDITS)
def test_an_edit_changes_one_attribute_of_its_kind(kind):
    for i in range(50):
        before, after = edits.random_edit(kind, "look", 1, i)
        changed = [(a, b) for a, b in zip(before.things, after.things, strict=True) if a != b]
        assert (before.background != after.background) == (kind == "background")
        assert replace(after, things=before.things, background=before.background) == before
        if kind == "background":
            assert not changed
        elif kind == "all":
            assert len({a.kind for a, _ in changed}) == 1
            of_kind = [t for t in before.things if t.kind == changed[0][0].kind]
            untouched = [t for t in of_kind if t in after.things]
            assert len(of_kind) > 1 and not untouched
        else:
            ((a, b),) = changed
            assert (a.colour != b.colour, a.kind != b.kind) == (kind == "colour", kind == "object")
        assert all((a.x, a.y, a.size) == (b.x, b.y, b.size) for a, b in changed)


def test_every_kind_can_be_drawn_in_every_colour_on_every_background():
    seen = set()

    def scene(*things, background="on the grass"):
        return scenes.Scene(things, background, 0.5, 1.0, 0.0, "left", 3)

    for kind in KINDS:
        for colour in COLOURS:
            seen.add(scenes.draw(scene(scenes.Thing(kind, colour, 0.5, 0.85, 0.4))).tobytes())
    for background in BACKGROUNDS:
        seen.add(scenes.draw(scene(background=background)).tobytes())
    assert len(seen) == len(KINDS) * len(COLOURS) + len(BACKGROUNDS)


def test_the_nearer_thing_hides_the_one_behind_it():
    behind, front = (
        scenes.Thing("ball", colour, 0.5, y, 0.4) for colour, y in (("red", 0.8), ("blue", 0.82))
    )
    scene = scenes.Scene((behind, front), "on the grass", 0.5, 1.0, 0.0, "left", 3)
    swapped = replace(scene, things=(front, behind))
    for each in (scene, swapped):
        red, _, blue = scenes.draw(each).getpixel((64, 84))
        assert blue > red


def test_captions():
    things = (scenes.Thing("car", "orange", 0.3, 0.8, 0.3),)
    scene = scenes.Scene(things, "by the sea", 0.5, 1.0, 0.0, "right", 0)
    assert scenes.caption(scene) == "an orange car by the sea"
    both = replace(scene, things=(*things, scenes.Thing("house", "blue", 0.7, 0.8, 0.3)))
    assert scenes.caption(both) == "an orange car and a blue house by the sea"
    three = replace(scene, things=(scenes.Thing("fish", "red", 0.3, 0.8, 0.3),) * 3)
    assert scenes.caption(three) == "three red fish by the sea"
    two = replace(scene, background="in the snow", things=things * 2)
    assert scenes.caption(two) == "two orange cars in the snow"


def test_every_phrasing_names_the_contents_in_known_words():
    used, phrasings = set(), set()
    for i in range(1500):
        rng = scenes.split_rng("words", 0, i)
        scene = scenes.random_scene(rng)
        text, content = scenes.caption(scene, rng), scenes.content(scene)
        assert scenes.read(scenes.caption(scene)) == content
        assert scenes.read(text).groups == content.groups
        assert scenes.read(text).background in (None, content.background)
        used |= set(text.split())
        phrasings.add(text.split()[0])
    assert tuple(sorted(used)) == scenes.WORDS
    assert {"a", "there", "two"} <= phrasings


def test_the_sheet_is_one_picture(tmp_path):
    assert command.main([str(tmp_path / "sheet.png"), "--sheet", "--count", "9"]) == 0
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.height > 2 * scenes.SIDE  # two rows


def test_bad_arguments_are_refused_in_one_sentence(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("kept")
    out = tmp_path / "out"
    refused = (
        (out, "--count", 0),
        (out, "--seed", -1),
        (taken,),
        (tmp_path, "--sheet"),
        (tmp_path / "sheet.xyz", "--sheet"),
    )
    for arguments in refused:
        done = _run(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert taken.read_text() == "kept"
    assert not out.exists()
