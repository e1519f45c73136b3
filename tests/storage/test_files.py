"""Files: refused in time, written whole or not at all, and known by their content."""

import hashlib
import subprocess
import sys

import pytest

from ptinv.errors import InputError
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
