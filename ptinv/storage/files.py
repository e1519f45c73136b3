"""Files, whatever is in them: checked before they are read, and written whole or not at all.

Imports no torch, so that a tool which only moves files starts at once.
"""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import InputError


def check_file(path: str | Path, error: type[InputError] = InputError) -> None:
    """Raises `error`, with the name, unless `path` is a regular file with something in it."""
    if os.path.isdir(path):
        raise error(f"{path}: this is a folder; name a file in it")
    if not os.path.isfile(path):
        raise error(f"{path}: there is no regular file of this name; check the path")
    if os.path.getsize(path) == 0:
        raise error(f"{path}: the file is empty; use another copy")


def check_output(
    path: str | Path, suffixes: Iterable[str], inputs: Iterable[str | Path] = ()
) -> Path:
    """Returns `path` as a Path if a file can be written there; leaves none. Raises InputError for
    another extension, a folder, one of the inputs, or a parent that can't take it."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the output's name must end in {', '.join(suffixes)}")
    if os.path.isdir(path):
        raise InputError(f"{path}: this is a folder; name a file in it")
    folder = Path(os.path.realpath(path)).parent if os.path.islink(path) else path.parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {folder}; create it first")
    try:  # permissions do not cover every place, such as a full or read-only disk
        tempfile.NamedTemporaryFile(dir=folder, suffix=".part").close()
    except OSError as error:
        wrong = f"the folder {folder} is not writable ({error.strerror}); choose another"
        raise InputError(f"{path}: {wrong}") from error
    try:
        os.stat(path)
    except FileNotFoundError:
        return path
    except OSError as error:
        raise InputError(f"{path}: no file can have this name ({error.strerror})") from error
    if any(os.path.exists(given) and os.path.samefile(path, given) for given in inputs):
        raise InputError(f"{path}: this would overwrite what it is made from; name another file")
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a name to write to, which takes the place of `path`, or of a link's target, once
    written whole. If the block raises, what was there stays and the part is removed."""
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, in 64 hexadecimal digits; 1 to 3 s a gigabyte."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
