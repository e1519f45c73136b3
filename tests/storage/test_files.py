"""Files: refused in time, written whole or not at all, and known by their content."""

import hashlib
import os
import subprocess
import sys
import time

import pytest
from safetensors import SafetensorError

from ptinv.errors import InputError, OutputError
from ptinv.storage import files


def test_a_name_that_no_file_can_have_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(InputError, match="no file can have this name"):
        files.check_output(tmp_path / f"{'a' * 300}.png", [".png"])


def test_an_output_is_none_of_the_inputs_under_any_name(tmp_path):
    (tmp_path / "a.png").write_bytes(b"work")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    for name in ("a.png", "link.png"):
        with pytest.raises(InputError, match="overwrite what it is made from"):
            files.check_output(tmp_path / name, [".png"], [tmp_path / "a.png"])
    (tmp_path / "dangling.png").symlink_to(tmp_path / "missing.png")
    files.check_output(tmp_path / "dangling.png", [".png"], [tmp_path / "a.png"])
    for name in ("b.png", "link.png"):
        files.check_output(tmp_path / name, [".png"], [tmp_path / "missing.png"])


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_is_written_takes_its_place_only_when_whole(tmp_path, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(error), files.replacing(path) as part:
        part.write_bytes(b"half")
        raise error
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]
    with files.replacing(path) as part:
        part.write_bytes(b"whole")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"whole")]


def test_a_symbolic_link_stays_one_and_its_target_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link.png", tmp_path / "there" / "a.png"
    link.symlink_to(target)
    for content in (b"new", b"replaced"):
        assert files.check_output(link, [".png"]) == link
        with files.replacing(link) as part:
            part.write_bytes(content)
        assert link.is_symlink() and target.read_bytes() == content
    assert [p.name for p in target.parent.iterdir()] == ["a.png"]
    nowhere = tmp_path / "nowhere.png"
    nowhere.symlink_to(tmp_path / "missing" / "a.png")
    with pytest.raises(InputError, match="there is no folder .*missing; create it first"):
        files.check_output(nowhere, [".png"])


def test_the_hash_is_of_the_bytes(tmp_path):
    (tmp_path / "one").write_bytes(b"a" * (2**20 + 5))
    assert files.sha256(tmp_path / "one") == hashlib.sha256(b"a" * 1048581).hexdigest()


def test_files_are_handled_without_importing_torch():
    code = "import sys, ptinv.storage.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_name_with_a_slash_at_its_end_or_a_nul_in_it_is_refused(tmp_path):
    for name, words in (("a.png/", "this is a folder"), ("a\0.png", "no file can have this name")):
        with pytest.raises(InputError, match=words):
            files.check_output(f"{tmp_path}/{name}", [".png"])
    assert list(tmp_path.iterdir()) == []


def test_a_link_to_itself_is_refused(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(InputError, match="no file can have this name"):
        files.check_output(tmp_path / "loop.png", [".png"])
    with pytest.raises(InputError, match="there is no folder"):
        files.check_output(tmp_path / "loop.png" / "a.png", [".png"])


def test_what_is_read_only_or_no_regular_file_is_not_replaced(tmp_path):
    (tmp_path / "kept.png").write_bytes(b"kept")
    (tmp_path / "kept.png").chmod(0o444)
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("kept.png", "pipe.png"):
        with pytest.raises(InputError, match="read-only, or no regular file; name another"):
            files.check_output(tmp_path / name, [".png"])


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_end(
    tmp_path, monkeypatch
):
    done, fsync, replace = [], os.fsync, os.replace

    def noted(number):
        done.append(os.readlink(f"/proc/self/fd/{number}"))
        fsync(number)

    def renamed(part, target):
        done.append("renamed")
        replace(part, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    with files.replacing(tmp_path / "a") as part:
        part.write_bytes(b"whole")
    assert done == [str(part), "renamed", str(tmp_path)]


def test_the_parts_of_runs_that_were_killed_are_swept_a_day_later(tmp_path):
    old, new, other = (tmp_path / name for name in (".ptinv-1.part", ".ptinv-2.part", "3.part"))
    for path in (old, new, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    with files.replacing(tmp_path / "a") as part:
        assert part.match(".ptinv-*.part")
        part.write_bytes(b"whole")
    assert sorted(tmp_path.iterdir()) == sorted([new, other, tmp_path / "a"])


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_is_a_sentence(tmp_path, error):
    with pytest.raises(OutputError, match="a cannot be written .No space left on device.; choose"):
        with files.replacing(tmp_path / "a") as part:
            part.write_bytes(b"half")
            raise error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_vanished_is_a_sentence(tmp_path):
    with pytest.raises(OutputError, match="a cannot be written .No such file or directory.;"):
        with files.replacing(tmp_path / "gone" / "a") as part:
            part.write_bytes(b"whole")


def test_only_json_s_objects_of_a_sane_length_and_depth_are_read():
    assert files.parse('{"a": [1]}') == {"a": [1]}
    deep, digits = '{"a":' * 100_000, f'{{"a": {"9" * 10_000}}}'
    for text in ("", "[]", "{", "null", deep, digits, " " * files.MOST + "{}"):
        with pytest.raises(InputError, match="^it is no JSON object"):
            files.parse(text)
