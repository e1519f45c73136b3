"""The tour runs, its notebooks on the web are what its text makes, and its tables are right."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import PROMPT

import ptinv
from ptinv import METHODS, ddim

TOUR = Path(__file__).parents[2] / "tools" / "tour"
TEXTS = sorted(TOUR.glob("[0-9]_*.py"))
LIMIT = 400_000  # bytes of a notebook


def cells(text: Path) -> list[tuple[str, str]]:
    """A percent script's cells: kind and source, without comment signs."""
    found = []
    for part in re.split(r"^# %%", text.read_text(), flags=re.M)[1:]:
        head, _, source = part.partition("\n")
        kind = "markdown" if "[markdown]" in head else "code"
        if kind == "markdown":
            source = re.sub("^# ?", "", source, flags=re.M)
        found.append((kind, source.strip()))
    return found


def kept(text: Path) -> list[dict]:
    return json.loads(text.with_suffix(".ipynb").read_text())["cells"]


def test_there_are_four():
    assert [text.name[:2] for text in TEXTS] == ["1_", "2_", "3_", "4_"]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_a_notebook_on_the_web_is_its_text_with_outputs(text):
    assert [(c["cell_type"], "".join(c["source"]).strip()) for c in kept(text)] == cells(text)
    assert text.with_suffix(".ipynb").stat().st_size < LIMIT
    outputs = [out for cell in kept(text) for out in cell.get("outputs", [])]
    kinds = {out["output_type"] for out in outputs}
    assert kinds == {"stream", "execute_result"}  # no error
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 3
    assert all(out.get("name") != "stderr" for out in outputs)
    assert str(Path.home()) + "/" not in text.with_suffix(".ipynb").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.stem)
def test_a_notebook_runs(text):
    """As a notebook where that can be, with its own assertions; else as plain Python."""
    try:
        import jupytext  # noqa: F401
        import nbclient  # noqa: F401
    except ImportError:
        about = os.environ | {"PYTHONPATH": f"{TOUR.parents[1]}"}
        subprocess.run([sys.executable, text], env=about, check=True, timeout=600)
        return
    code = "import sys, json; from pathlib import Path; import run; "
    code += "print('NOTEBOOK' + json.dumps(run.executed(Path(sys.argv[1]))))"
    about = os.environ | {"PYTHONPATH": f"{TOUR}:{TOUR.parents[1]}"}
    ended = subprocess.run(
        [sys.executable, "-c", code, text], env=about, check=True, timeout=600, capture_output=True
    )
    made = json.loads(ended.stdout.decode().partition("NOTEBOOK")[2])["cells"]
    for cell, old in zip(made, kept(text), strict=True):
        types = [[o["output_type"] for o in c.get("outputs", [])] for c in (cell, old)]
        assert types[0] == types[1], cell["source"]


def test_the_exercise_has_a_solution_and_is_not_solved():
    source = dict(enumerate(cells(TOUR / "4_your_own.py")))
    assert sum("assert is_diffedit(solution)" in code for _, code in source.values()) == 1
    said = "".join("".join(out.get("text", [])) for cell in kept(TOUR / "4_your_own.py")
                   for out in cell.get("outputs", []))  # fmt: skip
    assert "yours is DiffEdit: False" in said


# The tables of tools/tour/README.md


def test_timesteps_are_as_the_tables_have_them():
    assert ddim.timesteps(50)[:2] == [981, 961] and ddim.timesteps(50)[-1] == 1
    assert ddim.timesteps(70)[:2] == [967, 953] and ddim.timesteps(70)[-1] == 1
    first = ddim.schedule(50)[0]
    alphas = ddim.alphas_cumprod()
    assert (first.alpha_to, first.alpha_from) == (float(alphas[0]), float(alphas[1]))


def test_a_latent_is_lms_s_scaled():
    z0, eps, alpha = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8), 0.3
    x = z0 + ((1 - alpha) / alpha) ** 0.5 * eps
    assert torch.allclose(x, ddim.add_noise(z0, eps, alpha) / alpha**0.5, atol=1e-5)


def test_defaults_are_as_the_tables_have_them():
    null_text = METHODS["null-text"].settings(source="a cat")
    named = "inversion_guidance", "inner_steps", "lr", "lr_decay", "stop_below", "steps", "guidance"
    assert [getattr(null_text, n) for n in named] == [1.0, 10, 0.01, 0.01, 1e-5, 50, 7.5]
    settings = METHODS["diffedit"].settings()
    named = "mask_draws", "mask_threshold", "mask_clamp", "encode_ratio"
    assert [getattr(settings, n) for n in named] == [10, 0.5, 3.0, 0.8]
    p2p = METHODS["p2p"].settings(source="a cat")
    named = "cross_replace", "self_replace", "mask_threshold"
    assert [getattr(p2p, n) for n in named] == [0.8, 0.4, 0.3]


def test_calls_of_the_tables_can_be_made(small_model, picture):
    few = dict(steps=4, guidance=3.5)
    caption = dict(source="a red car on the grass", inversion_guidance=3.5)
    ptinv.edit(small_model, picture, PROMPT, "ddim-global", encode_ratio=0.8, **caption, **few)
    noised = replace(METHODS["diffedit"], trajectory=METHODS["sdedit"].trajectory)
    ptinv.edit(small_model, picture, PROMPT, noised, source=caption["source"], **few)
    gates = {"default": 0.8, "car": 0.4}
    words = dict(align="replace", cross_replace=gates, self_replace=0.4, reweight={"car": 2})
    words |= dict(focus="car", source_focus="car", source="a red car on the grass")
    ptinv.edit(small_model, picture, PROMPT, "p2p", **words, **few)
    found = ptinv.invert(small_model, picture, method="null-text", source="a red car", **few)
    assert len(found.embeddings) == 4 and len(found.trajectory) == 5


def test_the_tables_name_what_there_is():
    text = (TOUR / "README.md").read_text()
    options = set(re.findall(r"(?<![A-Za-z_.])([a-z_]+)=", text.partition("You know it from")[2]))
    theirs = {"num_inner_steps", "guidance_scale", "start_step", "steps_offset", "threshold", "res",
              "set_alpha_to_one", "method", "trajectory", "g", "cross_replace_steps",
              "self_replace_steps"}  # fmt: skip
    assert options - theirs <= set(vars(ptinv.Settings()))
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (TOUR / link).exists(), link
