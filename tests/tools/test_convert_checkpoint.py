"""Pickle checkpoints become safetensors, or are refused in a sentence without being run."""

import collections
import os
import pickle
import signal
import subprocess
import sys
import types
from pathlib import Path

import convert_checkpoint
import pytest
import torch
from safetensors.torch import load_file, save_file

PROGRAM = Path(convert_checkpoint.__file__)

WEIGHT = torch.arange(6.0).reshape(2, 3)
TIED = torch.ones(4)
KEPT = {
    "model.diffusion_model.input_blocks.0.0.weight": WEIGHT,
    "first_stage_model.encoder.conv_in.weight": WEIGHT.T,  # not contiguous
    "cond_stage_model.a.weight": TIED,
    "cond_stage_model.b.weight": TIED,  # the same memory
    "cond_stage_model.steps": torch.tensor([1, 2]),
}
POSITIONS = "cond_stage_model.transformer.text_model.embeddings.position_ids"
DROPPED = {
    name: torch.zeros(2)
    for name in (
        "model_ema.decay",
        "betas",
        "alphas_cumprod_prev",
        "sqrt_recip_alphas_cumprod",
        "log_one_minus_alphas_cumprod",
        "posterior_variance",
        "lvlb_weights",
        "ddim_sigmas",
        "logvar",
        POSITIONS,
    )
} | {"step": 7}


class Code:
    """Unpickling this creates a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("nested", [True, False])
def test_keeps_the_tensors_that_inference_needs(tmp_path, capsys, as_zip, nested):
    source, out = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    state = collections.OrderedDict(KEPT | DROPPED)
    content = {"state_dict": state, "global_step": 3} if nested else state
    torch.save(content, source, _use_new_zipfile_serialization=as_zip)
    assert convert_checkpoint.main([str(source), str(out)]) == 0
    written = load_file(out)
    assert written.keys() == KEPT.keys()
    for name, tensor in KEPT.items():
        torch.testing.assert_close(written[name], tensor, rtol=0, atol=0)
    said = capsys.readouterr().out
    size = sum(t.numel() * t.element_size() for t in KEPT.values())
    assert f"5 tensors, {size} bytes" in said and "11 entries left out" in said
    assert {path.name for path in tmp_path.iterdir()} == {source.name, out.name}


@pytest.mark.slow
def test_half_as_a_program(tmp_path):
    source, out = tmp_path / "diffusion_pytorch_model.bin", tmp_path / "model.safetensors"
    torch.save({"conv_in.weight": WEIGHT, "positions": torch.tensor([1])}, source)
    command = [sys.executable, str(PROGRAM), str(source), str(out), "--half"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "2 tensors, 20 bytes" in ran.stdout
    assert {k: v.dtype for k, v in load_file(out).items()} == {
        "conv_in.weight": torch.float16,
        "positions": torch.int64,
    }


def _refused(capsys, source: Path, out: Path, *words: str):
    before = {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}
    assert convert_checkpoint.main([str(source), str(out)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("convert_checkpoint.py: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    after = {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}
    assert after == before


def test_code_in_a_pickle_does_not_run(tmp_path, capsys):
    source, out, trace = tmp_path / "model.ckpt", tmp_path / "out.safetensors", tmp_path / "trace"
    content = {"callbacks": Code(trace), "state_dict": KEPT}
    torch.save(content, source)
    _refused(capsys, source, out, "mkdir", "not opened")
    torch.save(content, source, _use_new_zipfile_serialization=False)
    _refused(capsys, source, out, "mkdir", "not opened")
    for protocol in (2, 4):  # PyTorch writes 2, and reads no other as tensors alone
        source.write_bytes(pickle.dumps(content, protocol))
        _refused(capsys, source, out, "not opened")
    assert not trace.exists()
    pickle.loads(source.read_bytes())
    assert trace.exists()  # it would have run


def test_files_that_are_no_checkpoints(tmp_path, capsys):
    source, out = tmp_path / "model.ckpt", tmp_path / "out.safetensors"
    _refused(capsys, source, out, "not a file")
    torch.save(KEPT, source)
    whole = source.read_bytes()
    for content in (b"", b"no pickle\n", b"{" * 40, whole[:-100], whole[: len(whole) // 2]):
        source.write_bytes(content)
        _refused(capsys, source, out, "damaged")
    for content in ({}, {"step": 3}, {"state_dict": {}}, WEIGHT, DROPPED):
        torch.save(content, source)
        _refused(capsys, source, out, "no tensors")
    save_file({"weight": WEIGHT}, source)
    _refused(capsys, source, out, "safetensors file already")


def test_places_that_cannot_be_written(tmp_path, capsys):
    source = tmp_path / "model.ckpt"
    torch.save(KEPT, source)
    _refused(capsys, source, tmp_path / "out.bin", "does not end in .safetensors")
    _refused(capsys, source, tmp_path / "no" / "out.safetensors", "no folder")
    (tmp_path / "out.safetensors").mkdir()
    _refused(capsys, source, tmp_path / "out.safetensors", "cannot be written")


@pytest.mark.filterwarnings("ignore")  # of PyTorch about the very kinds
@pytest.mark.parametrize("kind", ["quantised", "sparse", "csr", "meta"])
def test_tensors_that_are_no_plain_numbers_are_refused_by_name(tmp_path, capsys, kind):
    plain = torch.eye(4)
    odd = {
        "quantised": lambda: torch.quantize_per_tensor(plain, 0.1, 0, torch.qint8),
        "sparse": plain.to_sparse,
        "csr": plain.to_sparse_csr,
        "meta": lambda: plain.to("meta"),
    }[kind]()
    source, out = tmp_path / "model.ckpt", tmp_path / "out.safetensors"
    torch.save({"a.weight": plain, "b.weight": odd}, source)
    _refused(capsys, source, out, "b.weight is quantised, sparse or without data")
    torch.save({"a.weight": plain, "model_ema.b": odd}, source)  # which is left out
    assert convert_checkpoint.main([str(source), str(out)]) == 0


def test_overlapping_and_empty_views_of_one_memory_are_written_apart(tmp_path):
    whole = torch.randn(8, 8)
    state = {"a": whole[:5], "b": whole[3:], "c": whole.T, "d": whole.view(-1)[5:9], "e": whole[:0]}
    source, out = tmp_path / "model.ckpt", tmp_path / "out.safetensors"
    torch.save(state, source)
    assert convert_checkpoint.main([str(source), str(out)]) == 0
    written = load_file(out)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX's")
def test_a_full_disk_leaves_the_old_file(tmp_path, capsys):
    import resource

    source, out = tmp_path / "model.ckpt", tmp_path / "out.safetensors"
    torch.save({"w": torch.randn(100, 100)}, source)
    out.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        _refused(capsys, source, out, "out.safetensors cannot be written (")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, usual)
    assert out.read_bytes() == b"old"


def test_the_training_callback_that_sd_v1_4_names_is_not_imported(tmp_path, monkeypatch, capsys):
    name = "pytorch_lightning.callbacks.model_checkpoint"
    callback = type("ModelCheckpoint", (), {"__module__": name})
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        module = types.ModuleType(part)
        module.ModelCheckpoint = callback
        monkeypatch.setitem(sys.modules, part, module)
    source, out = tmp_path / "model.ckpt", tmp_path / "model.safetensors"
    torch.save({"callbacks": {callback: {"best": 0.1}}, "state_dict": {"w": WEIGHT}}, source)
    for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name):
        monkeypatch.setitem(sys.modules, part, None)  # an import would fail
    assert convert_checkpoint.main([str(source), str(out)]) == 0
    assert torch.equal(load_file(out)["w"], WEIGHT)
