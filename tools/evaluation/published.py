"""The pictures of published benchmarks, in the very formats in which they are given out.

    coco      a folder of COCO's pictures, and captions_val2017.json: PTI's Tables 1 to 3 draw 128
    imagenet  ILSVRC2012's pictures, and the queries.csv of FlexIT's benchmark (arXiv 2203.04705):
              pictures of one class that are to become another; PTI's and DiffEdit's Fig. 4
    pie       PIE-Bench's folder (arXiv 2310.01506): annotation_images and mapping_file.json

Captions, prompts and masks are absent where a benchmark has none; nothing here has a true edit.
"""

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from world.edits import Edit

import ptinv
from ptinv.storage.pictures import open_picture

from .datasets import Case

COUNT = 128  # of COCO's pictures, as the paper has it
SIDE = 512  # of PIE-Bench's masks
PROMPTS = "original_prompt", "editing_prompt"  # of PIE-Bench


def load(
    data: str, images: Path | None, annotations: Path | None, count: int | None, seed: int
) -> list[Case]:
    """A benchmark's cases by its name. Raises InputError where what it needs is not given."""
    if images is None or (annotations is None and data != "pie"):
        raise ptinv.InputError(f"{data} needs --images DIR and --annotations FILE; give both")
    if data == "coco":
        return coco(images, annotations, count, seed)
    return {"imagenet": imagenet, "pie": pie}[data](images, annotations, count)


def coco(images: Path, annotations: Path, count: int | None, seed: int) -> list[Case]:
    """Pictures drawn by a seed, each with the first of its captions. Raises InputError."""
    said = _json(annotations)
    try:
        names = {image["id"]: str(image["file_name"]) for image in said["images"]}
        captions: dict[int, str] = {}
        for one in sorted(said["annotations"], key=lambda one: one["id"]):
            captions.setdefault(one["image_id"], str(one["caption"]).strip())
    except (TypeError, KeyError) as error:
        raise _not(annotations, "COCO's captions", error) from error
    known = _some(sorted(names.keys() & captions.keys()), annotations)
    order = np.random.default_rng(seed).permutation(len(known))[: count or COUNT].tolist()
    drawn = [(known[i], captions[known[i]]) for i in order]
    return [
        _case(f"coco, seed {seed}", i, images / names[number], "picture", caption, None)
        for i, (number, caption) in enumerate(drawn)
    ]


def imagenet(images: Path, annotations: Path, count: int | None) -> list[Case]:
    """The first queries, the test half's: the target is the name of a class. Raises InputError."""
    try:
        with open(annotations, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["is_test"] == "True"][:count]
        cases = [
            _case("imagenet", i, images / row["path"], "class", row["source"], row["target"],
                  classes=[int(row["source_id"]), int(row["target_id"])])
            for i, row in enumerate(rows)
        ]  # fmt: skip
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise _not(annotations, "FlexIT's queries.csv", error) from error
    return _some(cases, annotations)


def pie(images: Path, annotations: Path | None, count: int | None) -> list[Case]:
    """The first edits, of all ten types. Raises InputError."""
    annotations = annotations or images / "mapping_file.json"
    said = _json(annotations)
    try:
        cases = [
            _case("pie", i, images / "annotation_images" / one["image_path"],
                  str(one["editing_type_id"]), *(bare(one[n]) for n in PROMPTS),
                  mask=_runs(one["mask"]), blend=str(one["blended_word"]).split())
            for i, one in enumerate(list(said.values())[:count])
        ]  # fmt: skip
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _not(annotations, "PIE-Bench's mapping_file.json", error) from error
    return _some(cases, annotations)


def bare(prompt: str) -> str:
    """A prompt without the brackets that mark what is edited."""
    return prompt.replace("[", "").replace("]", "")


def _runs(mask: list[int]) -> list[int]:
    """The mask's pairs. Raises ValueError for what is none."""
    if len(mask) % 2 or any(type(n) is not int or n < 0 for n in mask):
        raise ValueError("a mask is pairs of a start and a length")
    return mask


def decoded(runs: list[int]) -> Image.Image:
    """PIE-Bench's mask, white where it is edited: pairs of a start and a length over 512 × 512, row
    by row. The outermost pixels are white always, as its own harness has it."""
    flat = np.zeros(SIDE * SIDE, np.uint8)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start : start + length] = 255
    mask = flat.reshape(SIDE, SIDE)
    mask[[0, -1]] = mask[:, [0, -1]] = 255
    return Image.fromarray(mask)


def _case(
    data: str,
    index: int,
    path: Path,
    kind: str,
    caption: str | None,
    target: str | None,
    mask: list[int] | None = None,
    **more: Any,
) -> Case:
    about = {"data": data, "index": index, "picture": path.name, **more}
    return Case(about, kind, caption, target, partial(_opened, path, kind, caption, target, mask))


def _opened(
    path: Path, kind: str, caption: str | None, target: str | None, runs: list[int] | None
) -> Edit:
    mask = None if runs is None else decoded(runs)
    return Edit(kind, caption, target, open_picture(path), None, mask)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ptinv.InputError(f"{path} cannot be read as JSON ({error})") from error


def _not(path: Path, what: str, error: Exception) -> ptinv.InputError:
    return ptinv.InputError(f"{path} is not {what} ({error!r}); fetch it again")


def _some(found: list[Any], path: Path) -> list[Any]:
    if not found:
        raise ptinv.InputError(f"{path} lists no pictures")
    return found
