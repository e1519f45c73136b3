"""Trains the embedded model from scratch: first the VAE, then UNet and text encoder together.

    python tools/train_tiny.py weights/tiny --work runs/tiny      # about 100 minutes on 2 cores

Stop it at any time: called again with the same --work folder, it goes on from its last checkpoint
(the arguments must be the same, but for the numbers of steps, the device and the output folder).
With `--start FOLDER` a run begins from another trained model (its words keep what they have
learned), and goes on training it on new pictures. `world/tiny.py` has the networks and losses.
"""

import argparse
import sys
from pathlib import Path

import torch
from world import folder, tiny, tokenizer
from world.trainer import DEVICE, check_run

import ptinv
from ptinv.errors import InputError


def train(start: ptinv.StableDiffusion | None, args: argparse.Namespace) -> None:
    """Trains all three networks and writes the model's folder."""
    args.work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    tokens = tokenizer.write_tokenizer(args.out / "tokenizer")
    vae = tiny.train_vae(start, args)
    latents, captions = tiny.encoded(vae, args)
    scale = 1 / latents.std().item()
    unet, text_encoder = tiny.train_unet(latents * scale, captions, tokens, start, args)
    folder.write_folder(args.out, vae, unet, text_encoder, scale)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="for checkpoints")
    parser.add_argument("--start", type=Path, help="a trained model's folder, to go on from")
    parser.add_argument("--vae-steps", type=int, default=3600)
    parser.add_argument("--unet-steps", type=int, default=6400)
    parser.add_argument("--vae-lr", type=float, default=1e-3)
    parser.add_argument("--unet-lr", type=float, default=6e-4)
    parser.add_argument("--vae-pictures", type=int, default=6000)
    parser.add_argument("--unet-pictures", type=int, default=20000)
    parser.add_argument("--batch", type=int, default=16, help="of the UNet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", choices=["cpu", "cuda"], default=DEVICE)
    args = parser.parse_args(argv)
    try:
        check_run(args)
        start = ptinv.load(args.start, "cpu", "float32") if args.start else None
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    train(start, args)


if __name__ == "__main__":
    sys.exit(main())
