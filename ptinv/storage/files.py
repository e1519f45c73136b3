"""Files, whatever is in them: checked before they are read, and written whole or not at all.

Imports no torch, so that a tool which only moves files starts at once.
"""

import hashlib
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ..errors import InputError, OutputError

PART = ".ptinv-", ".part"  # around a number: the name of what is not yet whole
MOST = 10_000_000  # characters of JSON, and bytes of a tokenizer's file


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
    path, named = Path(path), os.path.basename(path)  # "a.png/" names no file
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{path}: the output's name must end in {', '.join(suffixes)}")
    if os.path.isdir(path) or not named:
        raise InputError(f"{path}: this is a folder; name a file in it")
    folder = Path(os.path.realpath(path)).parent if os.path.islink(path) else path.parent
    if not os.path.isdir(folder):
        raise InputError(f"{path}: there is no folder {folder}; create it first")
    try:  # permissions do not cover every place, such as a full or read-only disk
        tempfile.NamedTemporaryFile(dir=folder, prefix=PART[0], suffix=PART[1]).close()
    except OSError as error:
        wrong = f"the folder {folder} is not writable ({error.strerror}); choose another"
        raise InputError(f"{path}: {wrong}") from error
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:  # too long, a link to itself, or with a NUL in it
        raise InputError(f"{path}: no file can have this name; choose another") from error
    if any(os.path.exists(given) and os.path.samefile(path, given) for given in inputs):
        raise InputError(f"{path}: this would overwrite what it is made from; name another file")
    if not os.path.isfile(path) or not mode & 0o222:
        raise InputError(f"{path}: this is read-only, or no regular file; name another file")
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Gives a name to write to, which takes the place of `path`, or of a link's target, once
    written whole and on the disk. If the block raises, what was there stays and the part is
    removed; one that a kill has left is by the next run, a day later. Raises OutputError."""
    target = Path(os.path.realpath(path))
    part = target.with_name(uuid.uuid4().hex.join(PART))
    try:
        for old in target.parent.glob("*".join(PART)):
            with suppress(OSError):  # it is gone, or somebody else's
                if time.time() - old.stat().st_mtime > 86_400:
                    old.unlink()
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)
        with suppress(OSError):  # where a folder can be flushed: its new name is on the disk, too
            folder = os.open(target.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written ({why}); choose another place") from error
    finally:
        part.unlink(missing_ok=True)


def parse(text: str) -> dict[str, Any]:
    """The object in JSON that anybody may have written. Raises InputError for anything else."""
    with suppress(ValueError, RecursionError):
        if len(text) < MOST and isinstance(said := json.loads(text), dict):
            return said
    raise InputError(f"it is no JSON object, or one of {MOST} characters and more")


def sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, in 64 hexadecimal digits; 1 to 3 s a gigabyte."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
