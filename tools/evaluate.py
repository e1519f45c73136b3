"""Measures the methods on pictures whose true edits are known, and the embedded model itself.

    python tools/evaluate.py edits --count 15         # are edits right? 15 held-out ones a kind
    python tools/evaluate.py report runs/edits        # the tables of whatever is finished
    python tools/evaluate.py search                   # each method's best setting, tune split
    python tools/evaluate.py frontier --plot it.png   # right for so many rows, tune split
    python tools/evaluate.py table2 --data coco --images val2017 --annotations captions_val2017.json
                                                      # the paper's; table1, table3, fig3 … 7; pie
    python tools/evaluate.py judge                    # is the judge right about held-out scenes?
    python tools/evaluate.py model                    # does the model make what captions name?
    python tools/evaluate.py reconstruction SCENES    # fidelity of inversions; SCENES: scenes.py's

A stopped run of edits goes on where it was; `torchrun --nproc-per-node N tools/evaluate.py edits …`
shares it out. Prints tables in Markdown. Nothing here was trained on the scenes that are used.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from evaluation import (
    datasets,
    edits,
    embedded,
    experiments,
    figures,
    paper,
    plots,
    published,
    runner,
    search,
    tables,
)
from evaluation.command_line import answer
from evaluation.networks import Networks
from evaluation.variants import VARIANTS, parse
from world import judge as judges

import ptinv
from ptinv.storage.pictures import open_picture

RUNS = Path("runs")
EXPERIMENTS = {
    "table1": "Table 1: DDIM's reconstructions by both ω",
    "table2": "Table 2: reconstructions by method",
    "table3": "Table 3: NTI and PTI by N and β",
    "fig3": "Fig. 3: reconstructions side by side",
    "fig4": "Fig. 4: fidelity against success by the mask's threshold",
    "fig5": "Fig. 5: edits side by side",
    "fig6": "Fig. 6: fidelity against success by η and β",
    "fig7": "Fig. 7: every thing of a kind",
}
EDITS = "edits, of scenes of each kind (default 2; others: all)"
NETWORKS = ("inception", "clip", "dino", "lpips")


def main(argv: list[str] | None = None) -> int:
    return answer("evaluate.py", run, parser(), argv)


def run(args: argparse.Namespace) -> None:
    """Does what the command line names; an interruption leaves in --out what is finished."""
    args.cells = getattr(args, "out", None)
    args.run(args)


def run_edits(args: argparse.Namespace) -> None:
    """Makes this process's share of the edits; prints the tables once all are made."""
    if args.plot:
        plots.check(args.plot)
    best = search.read(args.rows_from) if args.rows_from else {}
    usual = figures.FRONTIER.labels if args.command == "frontier" else VARIANTS
    rows = [*(args.row or usual), *args.also, *best.values()]
    variants = [parse(row) for row in dict.fromkeys(rows)]
    kinds = args.kinds.split(",") if args.kinds else datasets.KINDS
    if unknown := set(kinds) - set(datasets.KINDS):
        raise ptinv.InputError(f"there is no kind {', '.join(sorted(unknown))} of edit")
    if args.scenes:
        cases = datasets.listed(args.scenes, args.count, kinds)
    else:
        cases = datasets.drawn(args.split, args.seed, args.count or 15, kinds)
    groups = edits.groups(bench(args), cases, variants)
    if rows := experiments.made(groups, cases, [variant.label for variant in variants], args.out):
        print(tables.report(rows, args.than))
        tables.write_csv(args.out / "table.csv", rows, args.than)
        if args.plot and args.command == "frontier":
            plots.draw(args.plot, figures.frontier(rows), "UNet rows an edit", "right, %")
        elif args.plot:
            plots.draw(args.plot, figures.tradeoff(rows), *figures.axes(None))


def run_search(args: argparse.Namespace) -> None:
    """Finds the best settings of this process's share of the methods, and writes them."""
    methods = args.method or list(ptinv.METHODS)
    if unknown := set(methods) - ptinv.METHODS.keys():
        raise ptinv.InputError(f"there is no method {', '.join(sorted(unknown))}")
    rank, world = runner.rank_and_world()
    cases = datasets.drawn("tune", args.seed, args.count, datasets.KINDS)
    score, found = search.scorer(bench(args), cases, args.out), []
    for method in methods[rank::world]:
        found.append(search.best_of(method, score, args.told))
        search.write(args.out / f"best{rank or ''}.json", found)
    print(search.report(found))


def run_table(args: argparse.Namespace) -> None:
    """Makes one of the paper's tables, or its Fig. 3."""
    if args.data == "scenes":
        cases = datasets.captioned(args.count or 8, args.seed)
    else:
        cases = published.load(args.data, args.images, args.annotations, args.count, args.seed)
    if args.command in paper.TABLES:
        experiments.table(args.command, load(args), cases, args.out)
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        experiments.reconstructions(load(args), cases, args.out)


def run_figure(args: argparse.Namespace) -> None:
    """Makes one of the paper's figures of edits, or runs PIE-Bench."""
    if args.command == "pie":
        cases = published.pie(args.images, args.annotations, args.count)
        return experiments.pie_bench(bench(args), cases, args.out)
    if args.data == "scenes":
        kinds = (figures.CURVES | figures.SHEETS)[args.command].kinds or datasets.KINDS
        cases = datasets.drawn("test", args.seed, args.count or 2, kinds)
    else:
        cases = published.load(args.data, args.images, args.annotations, args.count, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    experiments.figure(args.command, bench(args), cases, args.out, args.class_means)


def run_report(args: argparse.Namespace) -> None:
    """Prints the tables of everything in a folder, apart for each model, precision and data."""
    found: dict[tuple[str, ...], dict[str, dict[int, tables.Item]]] = {}
    for line in runner.lines(args.folder):
        if "result" in line:
            about, result = line["settings"], line["result"]
            run = tuple(str(about[name]) for name in ("data", "model", "dtype"))
            row = found.setdefault(run, {}).setdefault(result["row"], {})
            row[about["index"]] = tables.Item(about["index"], about["kind"], result)
    if not found:
        raise ptinv.InputError(f"there are no results in {args.folder}")
    means = figures.class_means(args.class_means) if args.class_means else None
    for run, by_label in found.items():
        rows = {label: list(row.values()) for label, row in by_label.items()}
        print(f"{', '.join(run)}\n\n{tables.report(rows, args.than, means)}\n")


def bench(args: argparse.Namespace) -> edits.Bench:
    """The model and the networks that measure."""
    judge = judges.WEIGHTS if judges.WEIGHTS.is_file() else None
    own = {"judge": judge, "perceptual": args.perceptual}
    judging = {name: path and judges.load(path) for name, path in own.items()}
    networks = Networks(**{name: getattr(args, name) for name in NETWORKS})
    hashes = {name: path and edits.sha256(path) for name, path in own.items()}
    return edits.Bench(load(args), **judging, networks=networks, hashes=hashes | networks.hashes())


def load(args: argparse.Namespace) -> ptinv.StableDiffusion:
    """The model; where several processes share a machine, on one of its GPUs each."""
    device = args.device
    if device is None and torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", 0))
        device = f"cuda:{local % torch.cuda.device_count()}"
    return ptinv.load(args.model, device, args.dtype)


def run_embedded(args: argparse.Namespace) -> None:
    """Measures the judge or the model."""
    if not judges.WEIGHTS.is_file():
        raise ptinv.InputError(
            f"there is no judge at {judges.WEIGHTS}; train one with "
            f"python tools/world/train_judge.py {judges.WEIGHTS.parent}"
        )
    if args.command == "judge":
        embedded.judge_figures(load(args), args.count, args.seed)
    else:
        embedded.model_figures(load(args), args.count, args.inverted, args.seed)


def run_reconstruction(args: argparse.Namespace) -> None:
    """Prints the fidelity of inversions of a folder's pictures."""
    entries = datasets.manifest(args.scenes)[: args.count]
    captioned = [(open_picture(entry["image"]), entry["caption"]) for entry in entries]
    embedded.reconstruction(load(args), captioned)


def whole(low: int, high: int):
    """A check of a whole number from low to high."""

    def number(text: str) -> int:
        if not text.lstrip("-").isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}")
        return int(text)

    return number


def measuring(one: argparse.ArgumentParser) -> None:
    """Options of the networks that measure."""
    one.add_argument("--perceptual", type=Path, metavar="FILE", help="a perceptual network")
    for name in NETWORKS:
        about = f"its file or folder, as tools/evaluation/networks.py says (default: no {name})"
        one.add_argument(f"--{name}", type=Path, metavar="PATH", help=about)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = top.add_subparsers(dest="command", required=True)
    count, seed = whole(1, 10**6), whole(0, 2**32 - 1)

    def command(name: str, run, about: str, model: bool = True) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(run=run)
        if model:
            one.add_argument("--model", help="(default: the embedded one)")
            one.add_argument("--device")
            one.add_argument("--dtype")
        return one

    def of_edits(name: str, about: str, split: str, drawn: str) -> None:
        one = command(name, run_edits, about)
        folder = "a folder by scenes.py (default: drawn)"
        one.add_argument("scenes", type=Path, nargs="?", help=folder)
        many = "edits of each kind (default 15, a folder's all)"
        one.add_argument("--count", type=count, help=many)
        one.add_argument("--kinds", metavar="A,B", help=f"(default {','.join(datasets.KINDS)})")
        which = f"(default {split})"
        one.add_argument("--split", choices=["tune", "test"], default=split, help=which)
        one.add_argument("--seed", type=seed, default=0, help="of the scenes (default 0)")
        row = "a row by its label, or METHOD:option=value,… (repeatable)"
        one.add_argument("--row", action="append", help=f"only {row}")
        one.add_argument("--also", action="append", default=[], help=f"besides those, {row}")
        found = "and those that search found"
        one.add_argument("--rows-from", type=Path, metavar="FILE", help=found)
        one.add_argument("--than", default="pti", help="the row that all differ from (default pti)")
        one.add_argument("--plot", type=Path, metavar="FILE.png", help=drawn)
        measuring(one)
        one.add_argument("--out", type=Path, default=RUNS / name, help=f"(default runs/{name})")

    right = "are edits right, and how near to the true ones?"
    of_edits("edits", right, "test", "preservation against success")
    of_edits("frontier", "how many are right for so many UNet rows", "tune", "right against rows")

    one = command("search", run_search, "each method's best setting, found on the tune split")
    one.add_argument("--method", action="append", help="only this one (repeatable)")
    one.add_argument("--told", action="store_true", help="tell all methods the source text")
    one.add_argument("--count", type=count, default=4, help="edits of each kind (default 4)")
    one.add_argument("--seed", type=seed, default=0, help="of the scenes (default 0)")
    one.add_argument("--out", type=Path, default=RUNS / "search", help="(default runs/search)")
    measuring(one)

    for name, about in EXPERIMENTS.items():
        table = name in paper.TABLES or name == "fig3"
        one = command(name, run_table if table else run_figure, f"the paper's {about}")
        data = ("scenes", "coco") if table else ("scenes", "imagenet", "pie")
        one.add_argument("--data", choices=data, default="scenes", help="(default scenes)")
        one.add_argument("--images", type=Path, metavar="DIR", help="the data's pictures")
        one.add_argument("--annotations", type=Path, metavar="FILE", help="what is said of them")
        many = "pictures (default 8 scenes, 128 of COCO)" if table else EDITS
        one.add_argument("--count", type=count, help=many)
        one.add_argument("--seed", type=seed, default=0, help="of what is drawn (default 0)")
        one.add_argument("--out", type=Path, default=RUNS / name, help=f"(default runs/{name})")
        if not table:
            measuring(one)
            one.add_argument("--class-means", type=Path, metavar="FILE", help="FlexIT's, for CSFID")

    one = command("pie", run_figure, "PIE-Bench as its own harness runs it")
    one.add_argument("--images", type=Path, required=True, metavar="DIR", help="its folder")
    one.add_argument("--annotations", type=Path, metavar="FILE", help="(default: the folder's)")
    one.add_argument("--count", type=count, help="only so many (default: all 700)")
    one.add_argument("--out", type=Path, default=RUNS / "pie", help="(default runs/pie)")
    measuring(one)

    one = command("report", run_report, "the tables of a folder's finished edits", model=False)
    one.add_argument("folder", type=Path)
    one.add_argument("--than", default="pti", help="the row that all differ from (default pti)")
    one.add_argument("--class-means", type=Path, metavar="FILE", help="FlexIT's, for CSFID")

    for name, about in (("judge", "is the judge right?"), ("model", "is the model good?")):
        one = command(name, run_embedded, about)
        one.add_argument("--count", type=count, default=512, help="scenes (default 512)")
        one.add_argument("--seed", type=seed, default=0, help="of the scenes (default 0)")
        if name == "model":
            one.add_argument("--inverted", type=count, default=16, help="of them (default 16)")

    one = command("reconstruction", run_reconstruction, "how true are inversions?")
    one.add_argument("scenes", type=Path, help="a folder that scenes.py wrote")
    one.add_argument("--count", type=count, help="only so many")
    return top


if __name__ == "__main__":
    sys.exit(main())
