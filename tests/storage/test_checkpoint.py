"""Both checkpoint layouts lead to the same networks; anything else is refused in a sentence."""

import json
import math
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from data.fill import filled
from networks import KEYS, drawn, recorded, relative_error
from safetensors.torch import save_file

from ptinv.core.model import WEIGHTS
from ptinv.core.unet import UNet, UNetConfig
from ptinv.core.vae import VAE, VAEConfig
from ptinv.errors import CheckpointError
from ptinv.storage.checkpoint import load, open_checkpoint
from ptinv.storage.layouts import is_left_out, rename

GOLDEN = recorded("golden_ldm.npz")


def test_every_original_name_is_one_of_ours_and_every_one_of_ours_is_named():
    original = [key for key in KEYS["ldm"] if not is_left_out(key)]
    ours = [f"{network}.{name}" for network in WEIGHTS for name in KEYS[network]]
    assert sorted(rename(key) for key in original) == sorted(ours)


# Parity of the original layout, at full size: see test_networks.py for the tolerance.


def from_original(prefix: str, built: torch.nn.Module) -> torch.nn.Module:
    """A network with the tensors that the original names draw."""
    shapes = {name: tensor.shape for name, tensor in built.state_dict().items()}
    named = {key: shape for key, shape in KEYS["ldm"].items() if key.startswith(prefix)}
    state = {}
    for key, tensor in filled(named).items():
        name = rename(key).partition(".")[2]
        state[name] = tensor.reshape(shapes[name])
    built.load_state_dict(state, strict=True, assign=True)
    return built.eval().requires_grad_(False)


@pytest.mark.full_size
@torch.no_grad()
def test_unet_in_the_original_layout_predicts_what_the_original_does():
    with torch.device("meta"):
        unet = UNet(UNetConfig())
    unet = from_original("model.diffusion_model.", unet)
    z, context = drawn("ldm/latent", 1, 4, 32, 48), drawn("ldm/context", 1, 77, 768)
    for t in (21, 501):
        assert relative_error(unet(z, t, context), GOLDEN[f"unet.eps.{t}"]) < 1e-3


@pytest.mark.full_size
@torch.no_grad()
def test_vae_in_the_original_layout_gives_what_the_original_does():
    with torch.device("meta"):
        vae = VAE(VAEConfig())
    vae = from_original("first_stage_model.", vae)
    mean, logvar = vae.encode(drawn("ldm/image", 1, 3, 64, 96).clamp(-1, 1))
    assert relative_error(mean, GOLDEN["vae.mean"]) < 1e-3
    assert relative_error(logvar, GOLDEN["vae.logvar"]) < 1e-3
    assert relative_error(vae.decode(drawn("ldm/vae_z", 1, 4, 8, 12)), GOLDEN["vae.decoded"]) < 1e-3


# What the single file must be


def single_file(path, keys=KEYS["ldm"], **changed):
    """A file with the original's names; its tensors are one number each, unless given."""
    tensors = {key: torch.zeros(1) for key in keys} | changed
    save_file(tensors, path)
    return path


@pytest.fixture
def tokenizer(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text("{}")
    return folder


FIRST = "model.diffusion_model.input_blocks.0.0.weight"
CONTEXT = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    "changed, said",
    [
        ({FIRST: torch.zeros(1, 9)}, "inpainting"),
        ({FIRST: torch.zeros(1, 8)}, r"InstructPix2Pix \(8 input channels"),
        ({FIRST: torch.zeros(1, 7)}, "7 input channels"),
        ({FIRST: torch.zeros(1, 4), CONTEXT: torch.zeros(1, 1024)}, "Stable Diffusion 2"),
        ({"conditioner.embedders.0.x": torch.zeros(1)}, "Stable Diffusion XL"),
        ({"v_pred": torch.zeros(1)}, "predicts v"),
        ({FIRST: torch.zeros(1, 4), "control_model.x": torch.zeros(1)}, ": control_model.x; of"),
    ],
)
def test_a_single_file_of_another_kind_is_refused_by_name(tmp_path, tokenizer, changed, said):
    with pytest.raises(CheckpointError, match=said):
        load(single_file(tmp_path / "model.safetensors", **changed))


def test_training_leftovers_in_a_single_file_are_passed_over(tmp_path, tokenizer):
    left_out = ("model_ema.x", "betas", "sqrt_alphas_cumprod", "first_stage_model.loss.logvar")
    extra = {key: torch.zeros(1) for key in left_out} | {FIRST: torch.zeros(1, 4)}
    checkpoint = open_checkpoint(single_file(tmp_path / "model.safetensors", **extra))
    found = Counter(name.partition(".")[0] for name in checkpoint.tensors)
    assert found == {"unet": 686, "vae": 248, "text_encoder": 196}


def test_wrong_shapes_are_named_the_first_few_and_how_many_more(tmp_path, tokenizer):
    path = single_file(tmp_path / "model.safetensors", **{FIRST: torch.zeros(1, 4)})
    with pytest.raises(CheckpointError, match=r"of another shape: .* is \[1\], .*and \d+ more"):
        load(path)


def test_missing_tensors_are_named(tmp_path, tokenizer):
    keys = [key for key in KEYS["ldm"] if "input_blocks.4.1" not in key]
    path = single_file(tmp_path / "model.safetensors", keys, **{FIRST: torch.zeros(1, 4)})
    with pytest.raises(
        CheckpointError, match=r"missing: unet\.down_blocks\.1\.attentions\.0\..*more"
    ):
        load(path)


@pytest.mark.parametrize(
    "lacking, said",
    [
        (["first_stage_model"], "it has no VAE;"),
        (["cond_stage_model"], "it has no text encoder;"),
        (["first_stage_model", "cond_stage_model"], "it has no VAE and no text encoder;"),
        (["model"], "it has no UNet;"),
    ],
)
def test_a_merge_that_lacks_a_network_says_which(tmp_path, tokenizer, lacking, said):
    keys = [key for key in KEYS["ldm"] if key.partition(".")[0] not in lacking]
    extra = {} if "model" in lacking else {FIRST: torch.zeros(1, 4)}
    with pytest.raises(CheckpointError, match=said):
        load(single_file(tmp_path / "model.safetensors", keys, **extra))


def test_a_file_that_is_one_part_of_a_folder_is_told_from_a_whole_checkpoint(tmp_path):
    save_file({"down_blocks.0.x": torch.zeros(1)}, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match="give the whole folder"):
        open_checkpoint(tmp_path / "unet.safetensors")


LORA, TOKEN = "is a LoRA (merge it into the weights of", "is a textual inversion's embedding (of a"


@pytest.mark.parametrize(
    "key, said",
    [
        ("lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", LORA),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a", LORA),
        ("unet.mid_block.attentions.0.proj_in.lora_A.weight", LORA),
        ("text_model.encoder.layers.0.mlp.fc1.lora_B.weight", LORA),
        ("mid_block_attentions_0_proj_in.hada_w2_b", LORA),
        ("emb_params", TOKEN),
        ("<cat-toy>", TOKEN),
        ("string_to_param", TOKEN),
        ("string_to_param.*", TOKEN),
    ],
)
def test_what_is_trained_beside_a_model_is_named(tmp_path, key, said):
    save_file({key: torch.zeros(1, 768)}, tmp_path / "extra.safetensors")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path / "extra.safetensors")
    assert said in str(caught.value) and "only Stable Diffusion v1" in str(caught.value)


def test_a_single_file_needs_a_tokenizer_beside_it_or_given(tmp_path):
    path = single_file(tmp_path / "model.safetensors", **{FIRST: torch.zeros(1, 4)})
    with pytest.raises(CheckpointError, match="no tokenizer"):
        open_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x10\0\0\0\0\0\0\0{"])
def test_a_file_that_is_not_whole_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        open_checkpoint(path)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path):
    path = tmp_path / "model.ckpt"
    path.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="tools/convert_checkpoint.py"):
        open_checkpoint(path)


def test_a_missing_checkpoint_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        open_checkpoint(tmp_path / "nowhere")


# What loading takes


def write_sparse(path, shapes: dict[str, list[int]]) -> int:
    """A safetensors file of float16 zeros that the disk need not hold; the bytes of its tensors."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * math.prod(shape)
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [start, end]}
    written = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(written)) + written)
        file.truncate(8 + len(written) + end)
    return end


LOAD = """
import json, re, sys
from ptinv.storage.checkpoint import load

def peak():  # not `ru_maxrss`, which starts at what the parent process held
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])

imports = peak()
model = load(sys.argv[1], "cpu", "float32", sys.argv[2])
added = peak() - imports
networks = (model.unet, model.vae, model.text_encoder)
parameters = [list(network.parameters()) for network in networks]
weights = sum(p.nbytes for network in parameters for p in network)
print(json.dumps([added, weights, [sum(p.numel() for p in network) for network in parameters]]))
"""


@pytest.mark.full_size
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc tells the peak")
def test_loading_takes_little_more_memory_than_the_weights(small_folder, tmp_path):
    """Pages of the file that are mapped count as the process's memory, and so are in the peak."""
    path = tmp_path / "model.safetensors"
    size = write_sparse(path, KEYS["ldm"])
    words = [sys.executable, "-c", LOAD, str(path), str(small_folder / "tokenizer")]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600)
    path.unlink()
    added, weights, parameters = json.loads(done.stdout)
    assert parameters == [859_520_964, 83_653_863, 123_060_480]
    assert weights == 4 * sum(parameters)
    assert added < 1.2 * max(size, weights)
