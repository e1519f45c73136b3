"""The procedural world of captioned pictures: repeatable, and true to its masks."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).parents[1] / "tools" / "scenes.py"
_spec = importlib.util.spec_from_file_location("scenes", PROGRAM)
scenes = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scenes)


def _run(*arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def _files(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}


def test_same_seed_gives_the_same_bytes(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        assert scenes.main([str(tmp_path / name), "--count", "3", "--seed", str(seed)]) == 0
    first, again, other = (_files(tmp_path / name) for name in "abc")
    assert first == again
    assert first["images/0000.png"] != other["images/0000.png"]


def test_splits_share_no_scene():
    def drawn(split):
        return {scenes.random_scene(scenes.split_rng(split, 0, i)) for i in range(100)}

    assert len(drawn("train")) == 100
    assert not drawn("train") & drawn("test")


def test_manifest_lists_pictures_that_exist_and_kinds_in_turn(tmp_path):
    assert scenes.main([str(tmp_path), "--count", "7"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == [scenes.EDITS[i % 3] for i in range(7)]
    for line in lines:
        assert all((tmp_path / line[key]).is_file() for key in ("image", "truth", "mask"))
        assert line["caption"] != line["target"]
    listed = {line[key] for line in lines for key in ("image", "truth", "mask")}
    assert set(_files(tmp_path)) == listed | {"manifest.jsonl"}


@pytest.mark.parametrize("kind", scenes.EDITS)
def test_truth_differs_from_the_picture_only_inside_the_mask(kind):
    for i in range(30):
        rng = scenes.split_rng("masks", 0, i)
        scene = scenes.random_scene(rng)
        edited = scenes.edit(scene, kind, rng)
        picture, truth = np.asarray(scenes.draw(scene)), np.asarray(scenes.draw(edited))
        inside = np.asarray(scenes.edit_mask(scene, edited, kind)) == 255
        differs = (picture != truth).any(axis=2)
        assert differs[inside].any()
        assert not differs[~inside].any()
        assert not inside.all()


def test_every_kind_can_be_drawn_in_every_colour_on_every_background():
    seen = set()
    for kind in scenes.KINDS:
        for colour in scenes.COLOURS:
            thing = scenes.Thing(kind, colour, 0.5, 0.85, 0.4)
            scene = scenes.Scene((thing,), "on the grass", 0.5, 1.0, "left", 3)
            seen.add(scenes.draw(scene).tobytes())
    for background in scenes.BACKGROUNDS:
        seen.add(scenes.draw(scenes.Scene((), background, 0.5, 1.0, "left", 3)).tobytes())
    assert len(seen) == 8 * 10 + 5


def test_two_things_differ_and_do_not_overlap():
    drawn = [scenes.random_scene(scenes.split_rng("pairs", 0, i)) for i in range(200)]
    pairs = [scene.things for scene in drawn if len(scene.things) == 2]
    assert 40 < len(pairs) < 100
    for left, right in pairs:
        assert left.kind != right.kind and left.colour != right.colour
        assert left.x + left.size / 2 < right.x - right.size / 2


def test_captions():
    things = (scenes.Thing("car", "orange", 0.3, 0.8, 0.3),)
    scene = scenes.Scene(things, "by the sea", 0.5, 1.0, "right", 0)
    assert scenes.caption(scene) == "an orange car by the sea"
    both = scenes.replace(scene, things=(*things, scenes.Thing("house", "blue", 0.7, 0.8, 0.3)))
    assert scenes.caption(both) == "an orange car and a blue house by the sea"
    used = set()
    for i in range(500):
        rng = scenes.split_rng("words", 0, i)
        used |= set(scenes.caption(scenes.random_scene(rng), rng).split())
    assert tuple(sorted(used)) == scenes.WORDS


def test_bad_arguments_are_refused_in_one_sentence(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("kept")
    out = tmp_path / "out"
    for arguments in ((out, "--count", -1), (out, "--seed", -1), (taken,)):
        done = _run(*arguments)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
    assert not out.exists() and taken.read_text() == "kept"
