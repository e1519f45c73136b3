"""Commands that the README and other people's scripts have used: all are still understood."""

import shlex
from importlib import import_module
from pathlib import Path

import pytest

from ptinv.cli.options import build

ROOT = Path(__file__).parents[2]
PTINV = """
edit weights/tiny/examples/birds.png "two pink dogs in the snow" -o edited.png
edit photo.jpg "a yellow car" -o edited.png --model sd-v1-4
edit p.png "a car" -o e.png --method pti --eta 0.9 --focus "car snow" --source "a boat" --steps 50
edit p.png "a car" -o e.png --mask m.png --mask-from "attention*~file" --show-mask shown.png
edit p.png "a car" -o e.png --no-mask --reweight car=2 --encode-ratio 0.9 --paste-back --seed 1
edit p.png "a car" -o e.png --fast --dtype auto --compile --verbose
edit p.png "a car" -o e.png --mask-threshold 0.3 --mask-dilate 1 --mask-feather 2
edit p.png "a car" -o e.png --mask-relative-to object --subtract snow --mask-draws 3 --mask-clamp 4
edit x.safetensors "a car" -o e.png --reuse-tuning --guidance 5 --device cpu --dtype bfloat16
edit p.png "a car" -o e.png --cross-replace 0.8 --cross-replace tiger=0.2:0.5 --self-replace 0.4
edit p.png "a car" -o e.png --source-focus boat --self-cells 8 --align refine --low-pass 8
edit p.png "a car" -o e.png --method npi-prox --proximal l1 --proximal-quantile 0.7 --source "a b"
edit p.png "a car" -o e.png --sampler ancestral --init-embedding null --inner-steps 0 --lr 0.01
reconstruct p.png "a car" -o r.png --method null-text --inversion-guidance 0 --encode-ratio 0.8
reconstruct p.png "a car" -o r.png --lr-decay 0 --stop-below 0 --inner-steps 5 --lr 0.01
reconstruct p.png -o r.png --method vae --quiet
invert p.png -o x.safetensors
invert p.png "a car" -o x.safetensors --method edit-friendly --source "a boat" --tokenizer folder
again edited.png p.png --mask m.png -o again.png
again edited.png p.png
generate "a blue car" --source "a red car" -o car.png --show-source red.png --no-mask
generate "a blue car" -o car.png --seed 3 --steps 20 --guidance 5
methods
"""
TOOLS = {
    "attention.py": "--levels --at --steps --encode-ratio --model --device --dtype --quiet",
    "batch.py": "JOBS.jsonl --output --model",
    "sheet.py": "--work --methods --seed --steps --model --device --dtype",
    "compare_with_authors.py": "DIR --only",
    "evaluate.py": "judge model reconstruction edits report search frontier table1 table2 table3 "
    "fig3 fig4 fig5 fig6 fig7 pie",
    "scenes.py": "--count --seed",
    "train_tiny.py": "--work --start --vae-steps --unet-steps --unet-lr --unet-pictures --seed",
    "benchmark.py": "networks load edit gpu growth memory",
    "download_weights.py": "--yes --fp16",
    "convert_checkpoint.py": "ckpt",
    "trajectories.py": "--model --steps",
    "world/train_judge.py": "--work --pictures --blurred",
}


@pytest.mark.parametrize("line", PTINV.strip().splitlines())
def test_a_command_is_understood_with_all_its_options(line):
    words = shlex.split(line)
    args = vars(build().parse_args(words))
    assert args["command"] == words[0]
    given = {word[2:].replace("-", "_") for word in words if word.startswith("--")}
    assert given - {"no_mask", "fast"} <= args.keys()


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_is_where_it_was_and_takes_what_it_took(capsys, tool):
    assert (ROOT / "tools" / tool).is_file()
    program = import_module(tool.removesuffix(".py").replace("/", "."))
    try:
        code = program.main(["--help"])
    except SystemExit as end:
        code = end.code
    assert code == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in TOOLS[tool].split())


@pytest.mark.parametrize(
    "line",
    [
        "judge --count 5 --seed 1 --model m --device cpu --dtype float32",
        "model --count 5 --inverted 2 --seed 1 --model m --dtype bfloat16",
        "reconstruction scenes --count 3 --model m --dtype float32",
        "edits scenes --count 3 --model m --device cpu --dtype float32",
    ],
)
def test_the_measurements_take_what_they_took(line):
    args = vars(import_module("evaluate").parser().parse_args(line.split()))
    given = {word[2:] for word in line.split() if word.startswith("--")}
    assert given <= args.keys() and args["model"] == "m"
    assert "scenes" not in line or str(args["scenes"]) == "scenes"
