"""Edits many pictures: a job a line, the model loaded once, each picture inverted once.

    python tools/batch.py jobs.jsonl -o DIR

    {"picture": "a.jpg", "prompt": "a yellow car"}
    {"picture": "a.jpg", "prompt": "a red car", "name": "red", "method": "pti", "eta": 0.7}

A job is a picture's path, a prompt and, if wanted, a method, a name for the output and any option
of `ptinv edit` by its name in Python. Each edit is written whole to DIR/NAME.png with its record;
the name is the line's number by default. What is there already is skipped, so a stopped run goes on
where it was; a bad job is reported, and the rest is done. `--batch N` has N pictures on their way
at once, whose calls of the UNet are made as one: for a GPU, in more memory; a run that is stopped
makes those N anew. In float32 each is within 0.1 dB of what it is alone. `torchrun --nproc-per-node
N tools/batch.py …` shares the pictures out. Ends with 0 if all jobs are done, 2 if any is not.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from evaluation import runner
from evaluation.command_line import answer
from evaluation.edits import result_of
from evaluation.together import together

import ptinv
from ptinv.cli.options import Parser
from ptinv.methods.masks import painted
from ptinv.settings import check
from ptinv.storage.files import check_file
from ptinv.storage.pictures import open_picture

OWN = ("picture", "prompt", "name", "method")  # what a job says besides options


class Job(NamedTuple):
    """One line."""

    picture: str
    prompt: str
    name: str  # of the output, without its ending
    method: str
    options: dict[str, Any]


def read(path: Path) -> tuple[list[Job], list[str]]:
    """A file's jobs, and what is wrong with the lines that are none."""
    jobs, wrong = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ptinv.InputError(f"{path} is not a text; name a file with a job a line") from error
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                jobs.append(job_of(json.loads(line), f"{number:04}", {job.name for job in jobs}))
        except json.JSONDecodeError as error:
            wrong.append(f"{path}, line {number}: this is not JSON ({error.msg})")
        except (ValueError, TypeError) as error:
            wrong.append(f"{path}, line {number}: {error}")
    return jobs, wrong


def job_of(said: Any, number: str, taken: set[str]) -> Job:
    """The job that a line's JSON says. Raises ValueError or TypeError for anything else."""
    if not isinstance(said, dict) or not {"picture", "prompt"} <= said.keys():
        raise ValueError('a job is {"picture": PATH, "prompt": TEXT, …}')
    options = {name: value for name, value in said.items() if name not in OWN}
    options = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    if unknown := options.keys() - vars(ptinv.Settings()).keys():
        raise ValueError(f"there is no option {', '.join(sorted(unknown))}")
    own = {"name": number, "method": "auto"} | said
    job = Job(*(str(own[name]) for name in OWN), options)
    if job.method not in ptinv.METHODS:
        raise ValueError(f"there is no method {job.method!r}; there are {', '.join(ptinv.METHODS)}")
    if job.name in taken or Path(job.name).name != job.name:
        raise ValueError(f"the name {job.name!r} is taken, or is no file's name; give another")
    return job


def groups_of(
    jobs: list[Job], model: ptinv.StableDiffusion, folder: Path, at_once: int
) -> list[runner.Group]:
    """A group of so many pictures, in the order of the jobs."""
    by_picture: dict[str, list[Job]] = {}
    for job in jobs:
        by_picture.setdefault(job.picture, []).append(job)
    each, about = list(by_picture.values()), runner.made_by(model)
    results, groups = runner.results(folder), []

    def item(job: Job) -> dict[str, Any]:
        return job._asdict() | about

    def is_done(job: Job) -> bool:
        return runner.is_kept(folder, results.get(runner.key_of(item(job)), {}))

    for some in (each[i : i + at_once] for i in range(0, len(each), at_once)):
        begun = partial(begin, some[0], model, folder)
        if at_once > 1:
            begun = partial(begin_together, some, is_done, model, folder)
        groups.append(runner.Group([item(job) for jobs in some for job in jobs], begun))
    return groups


def begin_together(
    pictures: list[list[Job]],
    is_done: Callable[[Job], bool],
    model: ptinv.StableDiffusion,
    folder: Path,
) -> runner.Make:
    """Makes what is missing of several pictures' edits, a thread a picture."""

    def all_of(
        jobs: list[Job], model: ptinv.StableDiffusion
    ) -> list[dict[str, Any] | Exception | None]:
        make, made = begin(jobs, model, folder), []
        for i, job in enumerate(jobs):
            try:
                made.append(None if is_done(job) else make(i))
            except Exception as error:  # raised where the others' results are recorded
                made.append(error)
        return made

    calls = [partial(all_of, jobs) for jobs in pictures]
    made = [one for some in together(model, calls) for one in raised_or(some)]

    def make(i: int) -> dict[str, Any]:
        return raised_or(made[i])

    return make


def raised_or(result: Any) -> Any:
    """A result; raises it if it is an exception."""
    if isinstance(result, Exception):
        raise result
    return result


def begin(jobs: list[Job], model: ptinv.StableDiffusion, folder: Path) -> runner.Make:
    """Makes a picture's edits; what they can share is kept until the last of them."""
    picture, starts = cache(partial(open_picture, jobs[0].picture)), {}

    def make(i: int) -> dict[str, Any]:
        job, path = jobs[i], folder / f"{jobs[i].name}.png"
        mask = job.options.get("mask")
        given = job.options | ({"mask": open_picture(mask, painted)} if mask else {})
        result, cost = result_of(model, picture(), job.prompt, job.method, given, starts)
        result.save(path)
        return {"output": path.name, **cost._asdict()}

    return make


def report(done: list[dict[str, Any]], left: int) -> str:
    """Counts the jobs that are done, with the mean of what one takes: the seconds from its begin to
    its end, whatever else was made meanwhile."""
    text = f"{len(done)} edits are done, {left} are not"
    if done:
        each = {name: sum(one[name] for one in done) / len(done) for name in ("seconds", "forward")}
        text += f"; {each['seconds']:.1f} s and {each['forward']:.0f} UNet rows each"
    return text


def main(argv: list[str] | None = None) -> int:
    return answer("batch.py", run, parser(), argv)


def run(args: argparse.Namespace) -> int:
    """Does what the command line names; returns its exit code."""
    args.cells = args.output  # where an interruption leaves what is finished
    check("batch", args.batch, 1, 64, whole=True)
    check_file(args.jobs)
    runner.check_folder(args.output)
    jobs, wrong = read(args.jobs)
    for line in wrong:
        print(f"batch.py: {line}", file=sys.stderr)
    if not jobs and not wrong:
        raise ptinv.InputError(f"{args.jobs} holds no job; write one a line")
    model = ptinv.load(args.model, args.device, args.dtype)
    groups = groups_of(jobs, model, args.output, args.batch)
    runner.run(groups, args.output, partial(runner.is_kept, args.output), quiet=args.quiet)
    results = runner.results(args.output)
    keys = [runner.key_of(item) for group in groups for item in group.items]
    done = [results[key] for key in keys if key in results]
    print(report(done, len(jobs) - len(done) + len(wrong)))
    return 2 if wrong or len(done) < len(jobs) else 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="batch.py", description=__doc__.splitlines()[0])
    top.add_argument("jobs", type=Path, metavar="JOBS.jsonl")
    top.add_argument("-o", "--output", type=Path, metavar="DIR", required=True)
    at_once = "pictures on their way at once (default 1)"
    top.add_argument("--batch", type=int, default=1, metavar="N", help=at_once)
    for name in ("--model", "--device", "--dtype"):
        top.add_argument(name, help="as of `ptinv edit`")
    top.add_argument("--quiet", action="store_true", help="say only what is wrong")
    return top


if __name__ == "__main__":
    sys.exit(main())
