"""Trains the judge on drawn scenes, half of them blurred by a VAE's round trip.

Every picture that a latent diffusion model makes has been through its decoder, so the judge must
not take that blur for content. It sees no generated picture.

    python tools/world/train_judge.py weights/judge --work runs/judge   # 20 minutes on 2 cores
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

import ptinv
from ptinv.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[1]))  # as a program, too, this finds `world`

from world import judge, scenes
from world.grounds import BACKGROUNDS
from world.things import COLOURS, KINDS
from world.trainer import DEVICE, check_run, fit, to_float

BATCH = 64


def described(scene: scenes.Scene, rng: np.random.Generator) -> scenes.Content:
    """The contents of a scene; draws no random number."""
    return scenes.content(scene)


def labels(contents: list[scenes.Content]) -> judge.Answers:
    """The right answers: counts (n, kinds), colours (n, kinds, colours) of 0 and 1, background."""
    kinds, colours = list(KINDS), list(COLOURS)
    n = len(contents)
    counts = torch.zeros(n, len(kinds), dtype=torch.long)
    shown = torch.zeros(n, len(kinds), len(colours))
    background = torch.tensor([list(BACKGROUNDS).index(c.background) for c in contents])
    for i, content in enumerate(contents):
        for (colour, kind), count in content.groups.items():
            counts[i, kinds.index(kind)] += count
            shown[i, kinds.index(kind), colours.index(colour)] = 1
    return judge.Answers(counts, shown, background)


@torch.no_grad()
def round_trips(model: ptinv.StableDiffusion, pixels: Tensor) -> Tensor:
    """Pictures, as bytes (n, 3, h, w), encoded and decoded."""
    out = []
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        for batch in tqdm(pixels.split(25), desc="blurring"):
            mean, _ = model.vae.encode(to_float(batch).to(model.device))
            x = model.vae.decode(mean).float().clamp(-1, 1).cpu()
            out.append(((x + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(out)


def train(model: ptinv.StableDiffusion, args: argparse.Namespace) -> judge.Judge:
    """Cross-entropy of all three questions; pictures mirrored, lightened and shifted at random."""
    network = judge.Judge()
    drawn, contents = scenes.many("train", args.seed, args.pictures, described)
    sharp = torch.from_numpy(drawn)
    blurred = round_trips(model, sharp[: args.blurred])
    right = labels(contents)

    def loss_at(step: int) -> Tensor:
        g = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        half = BATCH // 2
        first = torch.randint(len(sharp), (half,), generator=g)
        second = torch.randint(len(blurred), (half,), generator=g)
        rows = torch.cat([first, second])
        x = to_float(torch.cat([sharp[first], blurred[second]]))
        mirrored = torch.rand(BATCH, generator=g) < 0.5  # captions don't tell left from right
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        x = x * torch.empty(BATCH, 1, 1, 1).uniform_(0.92, 1.08, generator=g)
        dx, dy = torch.randint(-4, 5, (2,), generator=g).tolist()
        x = F.pad(x, (4 + dx, 4 - dx, 4 + dy, 4 - dy), mode="replicate")[..., 4:-4, 4:-4]
        x = x.to(args.device, memory_format=torch.channels_last)
        counts, colours, background = network(x)
        wanted = [part[rows].to(args.device) for part in right]
        return (
            F.cross_entropy(counts.flatten(0, 1), wanted[0].flatten()) * 4
            + F.binary_cross_entropy_with_logits(colours, wanted[1]) * 20
            + F.cross_entropy(background, wanted[2])
        )

    return fit("judge", network, loss_at, args.steps, 1.5e-3, 0.995, args)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write judge.safetensors to")
    parser.add_argument("--work", type=Path, default=Path("runs/judge"), help="for checkpoints")
    parser.add_argument("--model", type=Path, default=Path("weights/tiny"), help="its VAE blurs")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--pictures", type=int, default=20000)
    parser.add_argument("--blurred", type=int, default=6000, help="how many are blurred as well")
    parser.add_argument("--seed", type=int, default=1000, help="not the embedded model's")
    parser.add_argument("--device", choices=["cpu", "cuda"], default=DEVICE)
    args = parser.parse_args(argv)
    try:
        check_run(args)
        model = ptinv.load(args.model, args.device, "float32")
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    network = train(model, args)
    state = {k: v.half().cpu().contiguous() for k, v in network.state_dict().items()}
    save_file(state, args.out / "judge.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    sys.exit(main())
