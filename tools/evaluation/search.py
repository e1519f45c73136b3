"""Each method's own best setting, found on the tune split: `evaluate.py search`.

One option at a time, in the order below, every value is tried on the first half of the edits; the
two best of them, and what the method has so far, on all. A value is taken if more edits come out
right with it, or as many and nearer to the true ones. So a method costs a few hundred edits, and a
stopped search goes on where it was. The test split is never looked at: what is found here is
measured there by `evaluate.py edits --rows-from DIR/best.json`.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ptinv
from ptinv.storage.files import replacing

from . import runner
from .datasets import Case
from .edits import Bench, groups
from .tables import markdown
from .variants import CAPTION, parse

# by option, in the order in which they are tried
TRIED: dict[str, Sequence[Any]] = {
    "guidance": (2, 3, 4, 5.5, 7.5, 10),
    "encode_ratio": (0.5, 0.65, 0.8, 0.9, 1),
    "mask": ("none",),
    "mask_from": ("attention", "difference"),
    "mask_threshold": (0.2, 0.35, 0.5),
    "steps": (20, 50),
    "eta": (0.7, 0.9, 1),
    "lr": (0.01, 0.03, 0.1),
    "inner_steps": (1, 5),
    "init_embedding": ("target", "null"),
    "cross_replace": (0.4, 0.8),
    "self_replace": (0.2, 0.4, 0.6),
    "proximal": ("l0", "l1", "code-l0"),
    "proximal_quantile": (0.5, 0.7, 0.85),
    "low_pass": (2, 4, 8),
    "sampler": ("ddim", "ancestral"),
    "inversion_guidance": (0, 1),
}
KEPT = 2  # values of an option that are tried on all edits
Score = tuple[float, float]  # the share that is right, and the mean PSNR to the true edit


class Found(NamedTuple):
    """The best setting of a method, as a row, beside its default."""

    method: str
    row: str
    default: Score
    best: Score
    rows: int  # that were tried


def start_of(method: str, told: bool) -> dict[str, Any]:
    """The options that are given in any case: the true text, where a method needs one."""
    return {"source": CAPTION} if told or ptinv.METHODS[method].needs_source else {}


def spelt(method: str, options: dict[str, Any]) -> str:
    """A row as `variants.parse` reads it."""
    given = ",".join(f"{name}={value}" for name, value in options.items())
    return f"{method}:{given}" if given else method


def values_of(method: str, options: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The options with each other value of one that is tried; none where it would change nothing,
    as a mask's does without a mask, or cannot be."""
    if name in ptinv.METHODS[method].ignored:
        return []
    settings = parse(spelt(method, options)).settings("a")
    idle = {"mask_threshold": ("mask", "mask_from"), "mask_from": ("mask",), "mask": ("mask_from",)}
    if any(settings[other] is None for other in idle.get(name, ())):
        return []
    now = settings[name]
    others = [options | {name: value} for value in TRIED[name] if not _same(value, now)]
    return [other for other in others if _can_be(spelt(method, other))]


def _same(value: Any, now: Any) -> bool:
    return value == now or (value == "none" and now is None)


def _can_be(row: str) -> bool:
    try:
        parse(row)
    except ptinv.InputError:
        return False
    return True


def best_of(method: str, score: Callable[[str, bool], Score], told: bool = False) -> Found:
    """The best setting of a method. score: of a row, over the first half of the edits or all."""
    options, tried = start_of(method, told), set()

    def scored(some: dict[str, Any], whole: bool) -> Score:
        row = spelt(method, some)
        tried.add(row)
        return score(row, whole)

    default = best = scored(options, True)
    for name in TRIED:
        others = values_of(method, options, name)
        others = sorted(others, key=lambda some: scored(some, False), reverse=True)[:KEPT]
        for other in others:
            if (found := scored(other, True)) > best:
                options, best = other, found
    return Found(method, spelt(method, options), default, best, len(tried))


def scorer(bench: Bench, cases: list[Case], folder: Path) -> Callable[[str, bool], Score]:
    """A score by the edits that a row makes; what was made already is read. A failed edit is wrong,
    at 0 dB. Raises InputError where nobody judges."""
    if bench.judge is None:
        raise ptinv.InputError("a search needs the judge; see evaluate.py judge")

    def score(row: str, whole: bool) -> Score:
        some = cases if whole else cases[: (len(cases) + 1) // 2]
        own = groups(bench, some, [parse(row)])
        runner.run(own, folder, alone=True)
        known, failed = runner.results(folder), {"right": False, "psnr": 0.0}
        results = [known.get(runner.key_of(group.items[0]), failed) for group in own]
        right, psnr = (sum(float(r[name]) for r in results) for name in ("right", "psnr"))
        return right / len(results), psnr / len(results)

    return score


def write(path: Path, found: list[Found]) -> None:
    """Writes the best rows by method, beside those of a file that is there."""
    known = read(path) if path.is_file() else {}
    rows = known | {one.method: one.row for one in found}
    with replacing(path) as part:
        part.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, str]:
    """The best rows by method in a file. Raises InputError for any other file."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {str(method): str(row) for method, row in rows.items()}
    except (OSError, ValueError, AttributeError) as error:
        wrong = f"{path} holds no rows ({error}); make it with evaluate.py search"
        raise ptinv.InputError(wrong) from error


def report(found: list[Found]) -> str:
    """Findings, in Markdown."""

    def shown(score: Score) -> str:
        return f"{100 * score[0]:.0f} % ({score[1]:.1f} dB)"

    cells = {
        one.method: [shown(one.default), shown(one.best), f"`{one.row}`", str(one.rows)]
        for one in found
    }
    heads = ["its default: right (to the true edit)", "its best", "that row", "rows tried"]
    return markdown("tune split", heads, cells)
