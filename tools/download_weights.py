"""Downloads what ptinv needs of Stable Diffusion v1.4, after saying what it is and asking:

    python tools/download_weights.py FOLDER [--fp16] [--yes]

The files come from CompVis/stable-diffusion-v1-4 on the Hugging Face hub, always at the same
revision. Those already there and right are not fetched again, so after an interruption the same
command goes on with the files that are missing. HF_ENDPOINT names another hub.
"""

import argparse
import hashlib
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ptinv.storage.files import sha256

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

REPO = "CompVis/stable-diffusion-v1-4"
REVISION = "133a221b8aa7292a167afc5127cb63fb5005638b"
LICENCE = "CreativeML OpenRAIL-M, https://huggingface.co/spaces/CompVis/stable-diffusion-license"


class DownloadError(Exception):
    """The reason why the weights could not be had, in a sentence."""


def wanted(fp16: bool = False) -> list[str]:
    """The files that ptinv needs, smaller kinds first; `fp16` takes the half-precision weights."""
    ending = "fp16.safetensors" if fp16 else "safetensors"
    tokenizer = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
    return [
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"tokenizer/{name}" for name in tokenizer),
        *(f"{part}/config.json" for part in ("text_encoder", "unet", "vae")),
        f"text_encoder/model.{ending}",
        f"vae/diffusion_pytorch_model.{ending}",
        f"unet/diffusion_pytorch_model.{ending}",
    ]


def describe(fp16: bool = False) -> list["RepoSibling"]:
    """The sizes and checksums that the hub gives for the files `wanted`."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(REPO, revision=REVISION, files_metadata=True)
        held = {file.rfilename: file for file in info.siblings or []}
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise DownloadError("the hub's answer is no description of a model") from error
    absent = [name for name in wanted(fp16) if name not in held]
    if absent:
        raise DownloadError(f"{REPO} at revision {REVISION[:8]} does not have {', '.join(absent)}")
    files = [held[name] for name in wanted(fp16)]
    if odd := [file.rfilename for file in files if not _is_described(file)]:
        raise DownloadError(f"the hub gives no size and checksum for {', '.join(odd)}")
    return files


def _is_described(file: "RepoSibling") -> bool:
    """True if the hub gives a file's size and a checksum: of weights the sha256."""
    digits = file.lfs.sha256 if file.lfs else file.blob_id
    length = 64 if file.lfs or file.rfilename.endswith(".safetensors") else 40
    if type(file.size) is not int or not 0 <= file.size < 10**20 or not isinstance(digits, str):
        return False
    return len(digits) == length and bool(re.fullmatch("[0-9a-f]+", digits))


def flaw(folder: Path, file: "RepoSibling") -> str | None:
    """The fault of `file` in `folder`: None if its size and its checksum are right.

    The hub gives the sha256 of its big files only, and git's name for the others: the sha1 of their
    length and bytes.
    """
    path = folder / file.rfilename
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != file.size:
        return f"has {path.stat().st_size} bytes instead of {file.size}"
    if file.lfs:
        right = sha256(path) == file.lfs.sha256
    else:
        content = path.read_bytes()
        right = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == file.blob_id
    return None if right else "does not have the sha256 or sha1 that the hub gives for it"


def announce(folder: Path, files: list["RepoSibling"]) -> None:
    """Prints which files will be downloaded, their sizes, the folder and the licence."""
    print(f"From {REPO}, revision {REVISION[:8]}, to {folder}:")
    for file in files:
        note = "  (replaces the one there)" if (folder / file.rfilename).exists() else ""
        print(f"{file.size / 1e6:10.3f} MB  {file.rfilename}{note}")
    print(f"{sum(file.size for file in files) / 1e6:10.3f} MB  in all")
    print(f"Licence: {LICENCE}", flush=True)


def confirmed() -> bool:
    """Asks on the terminal; raises DownloadError if there is none."""
    if not sys.stdin.isatty():
        raise DownloadError("there is no terminal to ask on; --yes downloads without asking")
    try:
        return input("Download? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def fetch(folder: Path, files: list["RepoSibling"]) -> None:
    """Downloads `files` into `folder`, and keeps only those that turn out to be right."""
    from huggingface_hub import hf_hub_download

    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    need, free = sum(file.size for file in files), shutil.disk_usage(place).free
    if need > free:
        raise DownloadError(
            f"the disk of {folder} has {free / 1e6:.0f} MB free of the {need / 1e6:.0f} MB needed"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        path = folder / file.rfilename
        # Without force the hub's client takes a file that it once fetched to be right still.
        force = path.exists()
        hf_hub_download(
            REPO, file.rfilename, revision=REVISION, local_dir=folder, force_download=force
        )
        if problem := flaw(folder, file):
            path.unlink(missing_ok=True)
            raise DownloadError(f"{file.rfilename} as downloaded {problem}; it was not kept")


def _why(error: BaseException) -> str:
    """An error of the system's or of the hub's client, in a sentence."""
    from huggingface_hub.constants import ENDPOINT

    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    while True:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403, 404):
            return f"{ENDPOINT} answered {status}: it does not offer {REPO}, or not to everybody"
        if status:
            return f"{ENDPOINT} answered {status}; try again later"
        if error.__cause__ is None:
            text = " ".join(str(error).split()) or type(error).__name__
            return f"the download from {ENDPOINT} failed: {text}"
        error = error.__cause__


def _fail(message: str) -> int:
    print(f"download_weights.py: {message}", file=sys.stderr)
    return 2


def _run(folder: Path, fp16: bool, yes: bool) -> int:
    from huggingface_hub.utils import HfHubHTTPError

    # Which HTTP library raises depends on the version of the hub's client; these bases cover it.
    network_errors = HfHubHTTPError.__bases__
    try:
        missing = [file for file in describe(fp16) if flaw(folder, file)]
        if missing:
            announce(folder, missing)
            if not (yes or confirmed()):
                print("Nothing was downloaded.")
                return 1
            fetch(folder, missing)
    except DownloadError as error:
        return _fail(str(error))
    except (OSError, ValueError, *network_errors) as error:
        return _fail(_why(error))
    print(f"The weights are complete in {folder}. Use them with\n")
    model = shlex.quote(str(folder))
    print(f'    ptinv edit photo.jpg "a yellow car" -o edited.png --model {model}')
    return 0


def main(argv: list[str] | None = None) -> int:
    """The command line; returns 0, 1 after a no, 2 after an error and 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description="Download the weights of Stable Diffusion v1.4.")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder to download to")
    parser.add_argument("--fp16", action="store_true", help="half-precision weights: half the size")
    parser.add_argument("--yes", action="store_true", help="do not ask before downloading")
    args = parser.parse_args(argv)
    try:
        return _run(args.folder, args.fp16, args.yes)
    except KeyboardInterrupt:
        print("\ndownload_weights.py: interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
