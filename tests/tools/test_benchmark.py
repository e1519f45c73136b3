"""The benchmark's measure of memory, in a process of its own as the benchmark has it; and its
tables of edits, of which no clock is tested."""

import json
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import benchmark
import pytest
import torch
from benchmarks import edits, growth, models
from edits import largest_difference
from PIL import Image
from small import PROMPT, UNET_TABLE, VAE_TABLE

import ptinv
from ptinv.core.attention import Control
from ptinv.core.pictures import resize
from ptinv.storage.layouts import SD_V1

TOOLS = Path(__file__).parents[2] / "tools"
MEASURED = """
import torch
from benchmarks import measure

def take(megabytes):
    torch.ones(megabytes * 10**6, dtype=torch.uint8)  # written to, and let go at once

take(400)
print(measure.added_by(lambda: take(100)))
"""
PROC = Path("/proc/self/clear_refs").exists()
needs_proc = pytest.mark.skipif(not PROC, reason="no /proc tells the peak")


@needs_proc
@pytest.mark.slow
def test_a_call_adds_its_own_peak_and_no_earlier_one():
    words = [sys.executable, "-c", MEASURED]
    done = subprocess.run(words, cwd=TOOLS, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 90 < float(done.stdout) < 150


@pytest.fixture
def gpu(small_folder, capsys):
    """Runs `gpu` on the small model, four steps of a CPU; its sentences and its rows."""

    def run(*words):
        here = ["--model", small_folder, "--device", "cpu", "--dtype", "float32"]
        few = ["--steps", "4", "--repeats", "1", "--source", "two pink birds in the snow"]
        assert benchmark.main([*map(str, ["gpu", *here, *few, *words])]) == 0
        return read(capsys.readouterr().out)

    return run


def read(text: str) -> tuple[str, list[dict[str, str]]]:
    """A table's sentences and its rows, by column."""
    lines = text.splitlines()
    table = [line[2:-2].split(" | ") for line in lines if line.startswith("|")]
    said = " ".join(line for line in lines if not line.startswith("|"))
    return said, [dict(zip(table[0], row, strict=True)) for row in table[2:]]


@needs_proc
def test_rows_are_counted_for_each_picture_forward_and_backward(gpu, tmp_path):
    said, rows = gpu("--methods", "pti,ddim-edit,nosuch", "--pictures", "1,2")
    assert "There is no method nosuch here" in said
    found = [(r["method"], r["pictures"], r["UNet rows forward"], r["backward"]) for r in rows]
    # three steps are left of four: 1 up, 3 and 1 back to tune c_t, 2 down
    assert found == [
        ("pti", "1", "18", "3"),
        ("ddim-edit", "1", "9", "0"),
        ("pti", "2", "36", "6"),
        ("ddim-edit", "2", "18", "0"),
    ]
    assert all(float(row["seconds"]) > 0 and float(row["peak, GB"]) > 0 for row in rows)


@needs_proc
def test_the_table_is_also_written_to_a_file_row_by_row(small_folder, tmp_path, monkeypatch):
    file, measured = tmp_path / "table.md", edits.cost_of

    def stopped_at_the_second(*how):
        if "pti" in file.read_text():
            raise KeyboardInterrupt
        return measured(*how)

    monkeypatch.setattr(edits, "cost_of", stopped_at_the_second)
    words = f"gpu --device cpu --model {small_folder} --steps 2 --repeats 1 --pictures 1"
    with pytest.raises(KeyboardInterrupt):
        benchmark.main([*words.split(), "--methods", "pti,ddim-edit", "-o", str(file)])
    assert [row["method"] for row in read(file.read_text())[1]] == ["pti"]


@needs_proc
def test_a_compiler_that_fails_says_so_in_its_row(gpu, monkeypatch):
    def fails(unet, **how):
        raise RuntimeError("no compiler | here")

    monkeypatch.setattr(torch, "compile", fails)
    _, (eager, compiled) = gpu("--methods", "ddim-edit", "--pictures", "1", "--compile")
    assert (eager["UNet"], compiled["UNet"]) == ("eager", "compiled")
    assert float(eager["seconds"]) > 0
    assert compiled["seconds"] == "failed: RuntimeError: no compiler / here"


@needs_proc
def test_what_is_compiled_is_the_unet_that_the_edit_calls(gpu, monkeypatch):
    called = []

    def compiled(unet, **how):
        copy = torch.nn.Module()
        copy.config = unet.config
        copy.forward = lambda *inputs: called.append(len(inputs[0])) or unet(*inputs)
        return copy

    monkeypatch.setattr(torch, "compile", compiled)
    _, rows = gpu("--methods", "ddim-edit", "--pictures", "1", "--compile")
    assert [row["UNet rows forward"] for row in rows] == ["9", "9"]
    assert sum(called) == 9 + 6  # and the warm-up's two steps


def test_cuda_graphs_are_copied_from_and_take_no_control(small_model, monkeypatch):
    outputs, begun = {}, []

    def compiled(unet, mode="default"):
        return lambda *inputs: outputs.setdefault(mode, unet(*inputs))

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(1))
    unet = edits.COMPILERS[edits.GRAPHS](small_model.unet)
    given = torch.randn(1, 4, 8, 8), torch.tensor([500]), small_model.embed("a dog")
    first = unet(*given)
    assert torch.equal(first, outputs["reduce-overhead"])
    assert first.data_ptr() != outputs["reduce-overhead"].data_ptr()
    assert unet(*given, Control()) is outputs["default"]
    assert begun == [1]


def test_several_pictures_are_edited_as_each_is_alone(small_model, picture):
    how = dict(steps=4, mask=None, eta=0.7)
    fitted = resize(picture, small_model.picture_size(picture.size))
    turned = fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    alone = [ptinv.edit(small_model, each, PROMPT, "pti", **how) for each in (fitted, turned)]
    together = edits.edit_all(small_model, [fitted, turned], PROMPT, "pti", **how)
    assert largest_difference(*alone) > 20
    assert all(largest_difference(a, b) <= 2 for a, b in zip(alone, together, strict=True))


@pytest.fixture
def tiny_sd(monkeypatch):
    """Stands for sd-v1-4's size, so that its random weights are made at once."""
    unet = replace(UNET_TABLE, trained_size=64, context_channels=32)
    text = SD_V1.text | dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
    )
    monkeypatch.setattr(models, "SD_V1", SD_V1._replace(unet=unet, vae=VAE_TABLE, text=text))


def test_random_weights_make_a_whole_model_without_a_file(tiny_sd, picture):
    model = models.Which(None, True, "cpu", "bfloat16", size=16).open()
    assert model.dtype == torch.bfloat16 == model.unet.conv_in.weight.dtype
    assert model.latent_size((512, 512)) == (16, 16)  # what --size says
    noise, context = torch.randn(2, 4, 16, 16), model.embed(["a dog", "a cat"])
    predicted = model.predict_noise(noise, 500, context)
    assert 0.1 < predicted.std() < 10 and not torch.equal(*predicted.split(1))
    edited = ptinv.edit(model, picture, PROMPT, "pti", steps=2)  # raises where it overflows
    assert edited.size == picture.size


def test_what_random_weights_read_off_a_picture_ends(tiny_sd, picture, unet_calls):
    model = models.Which(None, True, "cpu", "float32", size=8).open()
    ptinv.infer_source(model, picture, PROMPT)
    assert 0 < len(unet_calls) < 1000


@pytest.mark.full_size
@needs_proc
def test_a_model_of_full_size_is_edited_with(capsys):
    words = "gpu --random --device cpu --dtype float32 --size 8 --methods pti --pictures 1"
    assert benchmark.main([*words.split(), "--steps", "2", "--repeats", "1"]) == 0
    _, (row,) = read(capsys.readouterr().out)
    assert (row["UNet rows forward"], row["backward"]) == ("12", "2")
    assert float(row["peak, GB"]) > 4.2  # its weights in float32


@pytest.fixture
def inline(monkeypatch):
    """Has this process do what fresh ones would."""
    for module in (edits, growth):
        monkeypatch.setattr(module, "in_fresh_process", lambda function, *args: function(*args))


@needs_proc
def test_precisions_are_measured_with_each_method(small_folder, inline, capsys):
    words = f"memory --model {small_folder} --methods pti,ddim-edit --precisions bfloat16,float32"
    assert benchmark.main(words.split()) == 0
    said, rows = read(capsys.readouterr().out)
    assert "All of 2 steps" in said and "does not grow with its steps" in said
    assert [(row["precision"], row["method"]) for row in rows] == [
        ("bfloat16", "pti"),
        ("bfloat16", "ddim-edit"),
        ("float32", "pti"),
        ("float32", "ddim-edit"),
    ]
    assert [row["backward"] for row in rows] == ["2", "0", "2", "0"]


@needs_proc
def test_a_process_that_is_ended_leaves_the_other_rows(small_folder, monkeypatch, capsys):
    def ended(function, *args):
        if "bfloat16" in args[0]:
            raise BrokenProcessPool("a child process terminated abruptly")
        return function(*args)

    monkeypatch.setattr(edits, "in_fresh_process", ended)
    words = f"memory --model {small_folder} --methods ddim-edit --precisions bfloat16,float32"
    assert benchmark.main(words.split()) == 0
    _, (failed, done) = read(capsys.readouterr().out)
    assert "want of memory" in failed["seconds"] and float(done["seconds"]) > 0


def test_one_thing_grows_at_a_time():
    base = growth.Point(16, 10, 1, 1)
    for points in growth.axes(base).values():
        assert base in points.values() and len(points) >= 3
        changed = [[a != b for a, b in zip(p, base, strict=True)] for p in points.values()]
        assert max(map(sum, changed)) == 1
    assert list(growth.axes(base)["cells of the latent"]) == [64, 144, 256, 576]


@needs_proc
def test_growth_is_a_table_and_a_plot(small_folder, inline, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    plot = tmp_path / "plot.png"
    assert benchmark.main([*f"growth --model {small_folder} --steps 2 -o {plot}".split()]) == 0
    said, rows = read(capsys.readouterr().out)
    assert "latents of side 16, 2 steps, N = 1, 1 picture" in said
    rows_of = {(row["what grows"], row["to"]): int(row["UNet rows forward"]) for row in rows}
    # a step: 1 up, 2 to tune c_t and 1 for each of N, 2 down; T' is 2, 3 and 6 of 2, 4 and 8
    assert [rows_of["steps", n] for n in ("2", "4", "8")] == [12, 18, 36]
    assert [rows_of["N", n] for n in ("1", "2", "4")] == [12, 14, 18]
    assert [rows_of["pictures", n] for n in ("1", "2", "4")] == [12, 24, 48]
    assert len({rows_of["cells of the latent", str(n)] for n in (64, 144, 256, 576)}) == 1
    with Image.open(plot) as drawn:
        assert drawn.size == (1100, 550)


@needs_proc
def test_without_matplotlib_growth_is_the_table(small_folder, inline, capsys, monkeypatch):
    monkeypatch.setattr(growth.util, "find_spec", lambda name: None)
    point = growth.Point(16, 2, 1, 1)
    monkeypatch.setattr(growth, "axes", lambda base: {"steps": {2: point}})
    assert benchmark.main(f"growth --model {small_folder} --steps 2 -o plot.png".split()) == 0
    said, rows = read(capsys.readouterr().out)
    assert len(rows) == 1 and "needs matplotlib" in said


@pytest.mark.parametrize(
    "words, why",
    [
        ("gpu --random --model sd-v1-4 --device cpu", "two models; give one"),
        ("growth -o plot.jpg", "a plot is a PNG"),
        ("gpu --device cpu --picture nosuch.png", "nosuch.png"),
    ],
)
def test_a_command_that_cannot_be_says_why(words, why, capsys):
    pytest.importorskip("matplotlib")
    assert benchmark.main(words.split()) == 2
    assert why in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_gpu_the_command_for_gpus_says_what_else_to_use(capsys):
    assert benchmark.main(["gpu", "--random"]) == 2
    assert "use --device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["--pictures 0", "--pictures 1,x", "--repeats 0", "--steps 0"])
def test_numbers_that_are_none_are_refused(words):
    with pytest.raises(SystemExit) as end:
        benchmark.main(["gpu", "--device", "cpu", *words.split()])
    assert end.value.code == 2


@needs_proc
def test_an_edit_s_rows_are_counted_not_its_calls(small_folder, picture, tmp_path, capsys):
    picture.save(tmp_path / "picture.png")
    words = ["edit", tmp_path / "picture.png", PROMPT, "--model", small_folder, "--steps", "5"]
    assert benchmark.main([*map(str, words), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["UNet rows forward"] > 50  # reading the picture takes eight rows a call
    assert row["backward"] == 0
