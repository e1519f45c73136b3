"""Files, whatever is in them: looked at before they are read, and written whole or not at all."""

import hashlib
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def check_file(path: str | Path) -> None:
    """Raises InputError, without the name, unless `path` is a regular file with something in it."""
    if os.path.isdir(path):
        raise InputError("this is a folder; name a file in it")
    if not os.path.isfile(path):
        raise InputError("there is no regular file of this name; check the path")
    if os.path.getsize(path) == 0:
        raise InputError("the file is empty; use another copy")


def check_output(
    path: str | Path, suffixes: Iterable[str], inputs: Iterable[str | Path] = ()
) -> Path:
    """`path` as a Path if a file can be written there; to be called before any long work.

    Leaves nothing. Raises InputError for another extension than `suffixes`, a folder, one of the
    inputs, or a parent folder that is missing or that no file can be created in.
    """
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the output's name must end in {', '.join(suffixes)}")
    if os.path.isdir(path):
        raise InputError(f"{path}: this is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    part = _beside(path)
    try:  # permissions don't tell of every place
        try:
            part.touch(exist_ok=False)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: the folder {path.parent} is not writable ({error.strerror}); choose another"
        ) from error
    try:
        os.lstat(path)
    except FileNotFoundError:
        return path
    except OSError as error:
        raise InputError(f"{path}: no file can have this name ({error.strerror})") from error
    if any(os.path.exists(given) and os.path.samefile(path, given) for given in inputs):
        raise InputError(f"{path}: this would overwrite what it is made from; name another file")
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A name to write to, beside `path`, that takes its place at the end and is gone otherwise."""
    path = Path(path)
    part = _beside(path)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    """A name for a part of a file, in the same folder, that nothing has."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def content_hash(paths: Iterable[Path]) -> str:
    """The sha256 of several files, each after its length, in 64 hexadecimal digits.

    Read in pieces, so that it takes no memory: about a second for a gigabyte where the processor
    has instructions for SHA, three where it hasn't, or what the disk needs.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{os.path.getsize(path)}\n".encode())
        with open(path, "rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()
