"""A run makes each item once: when it is stopped, shared, or asked for something else meanwhile."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation import runner
from evaluation.runner import Group

ROOT = Path(__file__).parents[2]
# ten groups of three; a process is killed within the items that the second argument names, once
RUN = """
import os, signal, sys
from pathlib import Path
from evaluation import runner

folder, fatal = Path(sys.argv[1]), sys.argv[2].split(",")

def begin(group):
    def make(i):
        flag = folder / f"killed-{group}"
        if i == 1 and str(group) in fatal and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"square": (3 * group + i) ** 2, "by": os.environ.get("RANK")}
    return make

groups = [
    runner.Group([{"number": 3 * g + i} for i in range(3)], lambda g=g: begin(g)) for g in range(10)
]
runner.run(groups, folder)
"""
SQUARES = {runner.key_of({"number": n}): n**2 for n in range(30)}


def squares(folder: Path) -> dict[str, int]:
    return {key: result["square"] for key, result in runner.results(folder).items()}


def counting(settings: list[dict], made: list) -> Group:
    def begin():
        made.append("begun")
        return lambda i: made.append(settings[i]) or {"name": settings[i]["name"]}

    return Group(settings, begin)


def test_an_item_is_made_once_and_its_group_begins_only_for_a_missing_one(tmp_path):
    made = []
    a, b, c = ({"name": name} for name in "abc")
    runner.run([counting([a, b], made)], tmp_path)
    assert made == ["begun", a, b]
    runner.run([counting([a, b], made)], tmp_path)
    assert made == ["begun", a, b]
    runner.run([counting([a, c, b], made)], tmp_path)
    assert made == ["begun", a, b, "begun", c]
    assert {r["name"] for r in runner.results(tmp_path).values()} == set("abc")


def test_a_key_is_of_the_settings_and_not_of_their_order():
    one = {"model": "x", "settings": {"a": 1, "b": 2.0}}
    assert runner.key_of(one) == runner.key_of({"settings": {"b": 2.0, "a": 1}, "model": "x"})
    for other in ({"model": "y"}, {"settings": {"a": 1, "b": 2.5}}, {"more": None}):
        assert runner.key_of(one) != runner.key_of(one | other)


@pytest.mark.parametrize("kept", range(1, 40, 6))
def test_a_line_that_was_torn_off_is_made_again_and_the_next_is_whole(tmp_path, kept):
    made, settings = [], [{"name": "a"}, {"name": "b"}, {"name": "c"}]
    runner.run([counting(settings[:2], made)], tmp_path)
    (path,) = tmp_path.glob("*.jsonl")
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + second[:kept])
    assert len(runner.results(tmp_path)) == 1
    made.clear()
    runner.run([counting(settings, made)], tmp_path)
    assert made == ["begun", *settings[1:]]
    assert {r["name"] for r in runner.results(tmp_path).values()} == set("abc")


def test_a_failure_is_written_and_tried_again(tmp_path, capsys):
    settings, wrong = [{"name": "a"}, {"name": "b"}], [True]

    def make(i):
        if i == 0 and wrong:
            raise OSError("it rained")
        return {"name": settings[i]["name"]}

    runner.run([Group(settings, lambda: make)], tmp_path)
    assert [r["name"] for r in runner.results(tmp_path).values()] == ["b"]
    assert [line.get("error") for line in runner.lines(tmp_path)] == ["it rained", None]
    assert "it rained" in capsys.readouterr().err
    wrong.clear()
    runner.run([Group(settings, lambda: make)], tmp_path)
    assert {r["name"] for r in runner.results(tmp_path).values()} == {"a", "b"}


def test_what_is_wrong_with_the_program_is_not_taken_for_a_result(tmp_path):
    def make(i):
        raise KeyError(i)

    with pytest.raises(KeyError):
        runner.run([Group([{"name": "a"}], lambda: make)], tmp_path)
    assert list(runner.lines(tmp_path)) == []


def start(folder: Path, rank: int, world: int, fatal: str) -> subprocess.Popen:
    about = {"RANK": str(rank), "WORLD_SIZE": str(world), "PYTHONPATH": f"{ROOT / 'tools'}:{ROOT}"}
    return subprocess.Popen([sys.executable, "-c", RUN, folder, fatal], env=os.environ | about)


def test_two_processes_share_a_run_and_one_that_is_killed_goes_on(tmp_path):
    """Rank 1 has the odd groups; it dies within the fourth of them, and again within the last."""
    first, second = (start(tmp_path, rank, 2, "7,9") for rank in (0, 1))
    assert first.wait(60) == 0 and second.wait(60) == -signal.SIGKILL
    assert 15 < len(squares(tmp_path)) < 30
    assert start(tmp_path, 1, 2, "7,9").wait(60) == -signal.SIGKILL
    assert start(tmp_path, 1, 2, "7,9").wait(60) == 0
    assert squares(tmp_path) == SQUARES
    written = [json.loads(line) for line in (tmp_path / "items-1.jsonl").read_text().splitlines()]
    assert len(written) == 15 == len({line["key"] for line in written})  # none was made twice
    assert start(tmp_path, 0, 1, "").wait(60) == 0  # nothing is left for another number of them
    assert len(list(runner.lines(tmp_path))) == 30


@pytest.mark.slow
def test_torchrun_shares_a_run_and_starts_a_worker_that_died_again(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(RUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=2", str(script), str(tmp_path), "3"]
    subprocess.run(
        command,
        check=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'tools'}:{ROOT}"},
    )
    assert squares(tmp_path) == SQUARES
    assert (tmp_path / "killed-3").exists()
    assert {result["by"] for result in runner.results(tmp_path).values()} == {"0", "1"}
