"""Many edits from one file of jobs: each once, each whole, and a bad one stops no other."""

import json
from pathlib import Path

import batch
import pytest
from commands import contents, pixels
from PIL import Image
from small import PROMPT

import ptinv
from ptinv.metrics import psnr

NAMES = ("0001", "tuned", "more")
FEW = {"steps": 3, "source": "a red car on the grass"}
JOBS = [
    {"picture": "picture.png", "prompt": PROMPT, **FEW},
    {"picture": "picture.png", "prompt": PROMPT, "name": "tuned", "method": "pti", **FEW},
    {"picture": "picture.png", "prompt": "a boat", "name": "b", "method": "pti", "mask": "mask.png"}
    | FEW,
]


@pytest.fixture
def batch_(here, small_folder, capsys):
    """Runs the program over some jobs, objects or lines; returns its code and what it printed."""

    def run(*jobs, more=()):
        lines = (job if isinstance(job, str) else json.dumps(job) for job in jobs)
        (here / "jobs.jsonl").write_text("\n".join(lines))
        code = batch.main(["jobs.jsonl", "-o", "out", "--model", str(small_folder), *more])
        return code, capsys.readouterr()

    return run


def test_each_edit_is_what_python_makes_with_its_record(batch_, small_model, picture):
    code, said = batch_(*JOBS)
    assert code == 0 and said.out.startswith("3 edits are done, 0 are not; ")
    assert {name for name in contents(Path("out")) if name.endswith(".png")} == {
        *("0001.png", "tuned.png", "b.png")
    }
    for name, prompt, how in [
        ("0001", PROMPT, {"method": "auto"}),
        ("tuned", PROMPT, {"method": "pti"}),
        ("b", "a boat", {"method": "pti", "mask": "mask.png"}),
    ]:
        alone = ptinv.edit(small_model, picture, prompt, **how, **FEW)
        assert pixels(f"out/{name}.png")[1] == alone.tobytes()
    with Image.open("out/b.png") as made:
        assert made.text["prompt"] == "a boat"


def test_what_is_there_is_skipped_and_what_is_gone_is_made_again(batch_, here, unet_calls):
    batch_(*JOBS[:2])
    (here / "out" / "tuned.png").unlink()
    before, first = len(unet_calls), contents(Path("out"))["0001.png"]
    code, said = batch_(*JOBS[:2])
    assert code == 0 and "2 edits are done" in said.out and len(unet_calls) > before
    before = len(unet_calls)
    assert batch_(*JOBS[:2])[0] == 0
    assert len(unet_calls) == before and contents(Path("out"))["0001.png"] == first


@pytest.mark.parametrize(
    "bad, reason",
    [
        ("{", "jobs.jsonl, line 1: "),
        ("[]", "line 1: a job is"),
        ({"picture": "picture.png"}, "line 1: a job is"),
        ({**JOBS[0], "method": "magic"}, "there is no method 'magic'"),
        ({**JOBS[0], "etta": 1}, "there is no option etta"),
        ({**JOBS[0], "eta": 2}, "eta must be"),
        ({**JOBS[0], "picture": "none.png"}, "none.png: there is no regular file"),
        ({**JOBS[0], "name": "../x"}, "is no file's name"),
        ({**JOBS[0], "prompt": " "}, "the prompt is empty"),
    ],
)
def test_a_bad_job_is_reported_and_the_others_are_done(batch_, here, bad, reason):
    code, said = batch_(bad, {**JOBS[0], "name": "good"})
    assert code == 2 and reason in said.err and "Traceback" not in said.err
    assert said.out.startswith("1 edits are done, 1 are not")
    assert (here / "out" / "good.png").is_file() and not (here / "x.png").exists()


def test_several_pictures_at_once_are_what_each_is_alone(batch_, here, picture, unet_calls):
    picture.rotate(180).save("turned.png")
    jobs = [JOBS[0], {**JOBS[1], "picture": "turned.png"}, {**JOBS[2], "picture": "none.png"}]
    jobs.append({**JOBS[0], "name": "more", "method": "ddim-edit"})
    code, said = batch_(*jobs)
    assert code == 2 and "3 edits are done, 1 are not" in said.out
    calls_alone, alone = len(unet_calls), {name: pixels(f"out/{name}.png") for name in NAMES}
    (here / "out").rename("alone")
    code, said = batch_(*jobs, more=["--batch", "3"])
    assert code == 2 and "3 edits are done, 1 are not" in said.out
    assert len(unet_calls) - calls_alone < calls_alone
    for name in NAMES:
        (size, old), (same_size, new) = alone[name], pixels(f"out/{name}.png")
        pair = (Image.frombytes("RGB", size, pixels) for pixels in (old, new))
        assert size == same_size and psnr(*pair) > 50
    (here / "out" / "more.png").unlink()
    before = contents(Path("out"))["0001.png"]
    assert batch_(*jobs, more=["--batch", "3"])[0] == 2
    assert (here / "out" / "more.png").exists() and contents(Path("out"))["0001.png"] == before


def test_no_pictures_at_once_are_refused(batch_):
    code, said = batch_(JOBS[0], more=["--batch", "0"])
    assert code == 2 and "batch must be a whole number from 1 to 64, not 0" in said.err
