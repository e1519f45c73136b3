"""The precision that a model is opened in, and the UNet compiled."""

import warnings
from shutil import which

import pytest
import torch

import ptinv
from ptinv.errors import InputError
from ptinv.storage import checkpoint
from ptinv.storage.provenance import made_with

IS_FAST = checkpoint._is_fast  # as it is: for all tests the CPU is a plain one
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(params=[True, False], ids=["a CPU with bfloat16", "a CPU without"])
def has_bfloat16(request, monkeypatch):
    """A CPU of either kind; none has float16's instructions."""
    fast = {"float32"} | ({"bfloat16"} if request.param else set())
    monkeypatch.setattr(
        checkpoint, "_is_fast", lambda name, device: device.type == "cuda" or name in fast
    )
    return request.param


@pytest.mark.parametrize("wanted", [None, "auto"])
def test_auto_is_the_fastest_that_the_device_does_not_emulate(has_bfloat16, wanted):
    assert checkpoint.precision(wanted, CUDA) == torch.float16
    usual = torch.bfloat16 if has_bfloat16 else torch.float32
    assert checkpoint.precision(wanted, CPU) == usual


def test_an_emulated_precision_is_doubted_before_the_work(has_bfloat16, small_folder):
    if has_bfloat16:
        ptinv.load(small_folder, "cpu", "bfloat16")  # a warning would be an error
    else:
        with pytest.warns(ptinv.Doubt, match="no instructions for bfloat16 .* float32 is faster"):
            assert ptinv.load(small_folder, "cpu", torch.bfloat16).dtype == torch.bfloat16


def test_pytorch_is_asked_for_the_instructions(monkeypatch):
    assert IS_FAST("float32", CPU) and IS_FAST("bfloat16", CUDA)
    assert IS_FAST("bfloat16", CPU) == bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not IS_FAST("bfloat16", CPU)


def test_a_dtype_that_there_is_not_is_refused(small_folder):
    with pytest.raises(InputError, match="auto or one of float32, bfloat16, float16, not int8"):
        ptinv.load(small_folder, "cpu", "int8")
    with pytest.raises(InputError, match="not torch.float64"):
        ptinv.load(small_folder, "cpu", torch.float64)


def test_compiling_without_a_compiler_is_refused(small_folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="a C.. compiler"):
        ptinv.load(small_folder, "cpu", "float32", compile=True)


@pytest.mark.skipif(not any(map(which, checkpoint.COMPILERS)), reason="needs a C++ compiler")
def test_a_compiled_model_is_the_same_model(small_folder, small_model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own inductor
        compiled = ptinv.load(small_folder, "cpu", "float32", compile=True)
    assert hasattr(compiled.unet, "_orig_mod") and compiled.unet.config == small_model.unet.config
    assert made_with(compiled) == made_with(small_model)
