"""What the command line takes. Only the options that are given end up in the namespace, so that a
method's own defaults hold for the rest. Nothing here waits for torch.
"""

import argparse

from ..settings import Settings
from . import values

DEFAULTS = Settings()


class Parser(argparse.ArgumentParser):
    """Errors in one line, exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build() -> argparse.ArgumentParser:
    parser = Parser(
        prog="ptinv",
        description="Text-driven editing of real pictures by Prompt Tuning Inversion.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", parser_class=Parser, metavar="COMMAND")
    of_model, of_inversion, of_edit = _model_options(), _inversion_options(), _edit_options()
    of_attention = _attention_options()

    edit = commands.add_parser(
        "edit", parents=[of_model, of_inversion, of_attention, of_edit], help="edit a picture"
    )
    edit.add_argument("picture", metavar="PICTURE", help="or what `ptinv invert` made of it")
    edit.add_argument("prompt", metavar="PROMPT", help='what it should become: "a yellow car"')
    edit.add_argument("-o", "--output", metavar="OUT.png", required=True)
    edit.add_argument(
        "--show-mask",
        metavar="FILE.png",
        default=argparse.SUPPRESS,
        help="also write the mask over the picture",
    )

    invert = commands.add_parser(
        "invert",
        parents=[of_model, of_inversion],
        help="do an edit's long work once, for many edits",
        description="The file that is written takes the picture's place in edit and reconstruct. "
        "With a PROMPT it also holds the tuning for it; other prompts are tuned for when needed.",
    )
    invert.add_argument("picture", metavar="PICTURE")
    invert.add_argument("prompt", metavar="PROMPT", nargs="?", default=None)
    invert.add_argument("-o", "--output", metavar="X.safetensors", required=True)

    reconstruct = commands.add_parser(
        "reconstruct",
        parents=[of_model, of_inversion, of_attention, of_edit],
        help="invert a picture and walk back without an edit; prints PSNR",
        description="Prints the PSNR against the picture at the model's size, and the VAE's, which "
        "is the ceiling. --method also takes ddim (sampling with the prompt alone) and vae.",
    )
    reconstruct.add_argument("picture", metavar="PICTURE", help="or what `ptinv invert` made of it")
    reconstruct.add_argument("prompt", metavar="PROMPT", nargs="?", default=None)
    reconstruct.add_argument("-o", "--output", metavar="OUT.png", required=True)

    again = commands.add_parser(
        "again",
        parents=[of_model],
        help="repeat an edit from the PNG that it made",
        description="A PNG made by edit or reconstruct says in its text chunks how it was made; "
        "JPEG and WebP cannot. On the same machine the pixels are the same. The device and dtype "
        "are those of the first time unless given.",
    )
    again.add_argument("edited", metavar="EDITED.png")
    again.add_argument("picture", metavar="PICTURE", help="what it was made of")
    again.add_argument(
        "-o",
        "--output",
        metavar="OUT.png",
        help="(default: EDITED-again.png beside EDITED.png, if there is no such file yet)",
    )
    again.add_argument(
        "--mask", metavar="FILE", default=argparse.SUPPRESS, help="the mask, if one was given then"
    )

    generate = commands.add_parser(
        "generate",
        parents=[of_model, of_attention],
        help="make a picture from noise",
        description="With --source the picture is an edit, by Prompt-to-Prompt, of the one that "
        "the source text makes of the same noise.",
    )
    generate.add_argument("prompt", metavar="PROMPT")
    generate.add_argument("-o", "--output", metavar="OUT.png", required=True)
    source = dict(metavar="TEXT", default=argparse.SUPPRESS)
    generate.add_argument("--source", help="the prompt of the picture to edit", **source)
    shown = dict(metavar="FILE.png", default=argparse.SUPPRESS)
    generate.add_argument("--show-source", help="also write the source's picture", **shown)
    generate.add_argument("--no-mask", action="store_true", default=argparse.SUPPRESS)
    _number(generate, "--steps", int, "of DDIM")
    _number(generate, "--guidance", float, "ω")
    _number(generate, "--seed", int, "of the noise")

    attention = commands.add_parser(
        "attention",
        parents=[of_model],
        help="draw where in a picture each word of a prompt looks",
        description="Draws the cross-attention of every word over the picture, each map relative "
        "to its own maximum, which is written beside the word. Nothing is edited: the picture is "
        "inverted without a prompt, and the UNet is asked at each of its latents.",
    )
    attention.add_argument("picture", metavar="PICTURE", help="or what `ptinv invert` made of it")
    attention.add_argument("prompt", metavar="PROMPT")
    attention.add_argument("-o", "--output", metavar="MAPS.png", required=True)
    attention.add_argument(
        "--levels",
        metavar="1,2",
        type=values.levels,
        help="of the UNet, from fine to coarse (default: the one that masks are made at)",
    )
    attention.add_argument(
        "--at",
        metavar="40,20,1-10",
        type=values.spans,
        help="steps, from 1 next to the picture to the noisiest; a range is averaged "
        "(default: all, averaged)",
    )
    _number(attention, "--steps", int, "of DDIM, over the whole schedule")
    _number(attention, "--encode-ratio", float, "how much of the schedule is inverted")

    commands.add_parser("methods", help="list the methods with their defaults")
    return parser


def _model_options() -> argparse.ArgumentParser:
    group = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--model",
        metavar="PATH",
        help="a diffusers-layout folder or an original .safetensors file of Stable Diffusion v1 "
        "(default: $PTINV_MODEL, else the embedded tiny model)",
    )
    group.add_argument("--tokenizer", metavar="DIR", help="its tokenizer, if not beside the file")
    group.add_argument("--device", help="cuda or cpu (default: cuda where there is one)")
    group.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="of the networks (default: float16 on cuda, float32 on the cpu)",
    )
    group.add_argument("--quiet", action="store_true", default=False, help="say only what is wrong")
    return group


def _inversion_options() -> argparse.ArgumentParser:
    group = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--method", help="see `ptinv methods` (default: pti, or what made a stored inversion)"
    )
    group.add_argument(
        "--source",
        metavar="TEXT",
        help="what the picture shows: needed by the methods that sample it beside the edit, and a "
        "hint to the others",
    )
    _number(group, "--steps", int, "of DDIM, over the whole schedule")
    _number(group, "--encode-ratio", float, "how much of the schedule is inverted")
    _number(group, "--inversion-guidance", float, "ω on the way up, of --source or the prompt")
    _number(group, "--inner-steps", int, "N: tuning iterations at each timestep")
    _number(group, "--lr", float, "β: the tuning's learning rate")
    _number(group, "--lr-decay", float, "the share of β that each step takes from it")
    _number(group, "--stop-below", float, "the loss that ends a step's tuning; it grows by step")
    _number(group, "--guidance", float, "ω in tuning and sampling")
    group.add_argument(
        "--init-embedding",
        choices=["target", "null", "source"],
        help="where the tuning starts (default: target)",
    )
    _number(group, "--seed", int, "of whatever noise a method draws")
    return group


def _attention_options() -> argparse.ArgumentParser:
    group = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group.add_argument("--focus", metavar="WORDS", help="words of the prompt that the mask follows")
    group.add_argument(
        "--source-focus",
        metavar="WORDS",
        help="and of the source text (default: those that the prompt lacks)",
    )
    group.add_argument("--subtract", metavar="WORDS", help="words whose places the mask leaves out")
    _number(group, "--mask-threshold", float, "of masks made of attention or differences")
    group.add_argument(
        "--reweight",
        metavar="WORD=2",
        action="append",
        type=values.weight,
        help="multiply a word's attention (repeatable)",
    )
    group.add_argument(
        "--cross-replace",
        metavar="[WORD=]0.8",
        action="append",
        type=values.word_gate,
        help="how long the source's cross-attention is the prompt's, too: a share of the steps or "
        "FROM:TO, for all words or one (repeatable) (default: 0.8)",
    )
    group.add_argument(
        "--self-replace",
        metavar="0.4",
        type=values.gate,
        help="and its self-attention: a share of the steps or FROM:TO (default: 0.4)",
    )
    _number(group, "--self-cells", int, "cells across the largest map of it that is replaced")
    group.add_argument(
        "--align",
        choices=["auto", "replace", "refine"],
        help="how words are paired: one by one, which needs as many in both texts, or as far as "
        "the texts agree (default: auto, one by one where it can be)",
    )
    return group


def _edit_options() -> argparse.ArgumentParser:
    group = Parser(add_help=False, argument_default=argparse.SUPPRESS)
    _number(group, "--eta", float, "η: how much of the target prompt, from 0 to 1")
    group.add_argument(
        "--sampler",
        choices=["ddim", "ancestral"],
        help="the step down: without or with new noise (default: the method's)",
    )
    _number(group, "--low-pass", int, "cells of ilvr's filter")
    group.add_argument(
        "--proximal",
        choices=["l0", "l1"],
        help="npi-prox: keep strong guidance as it is, or lessen it by the limit (default: l0)",
    )
    _number(group, "--proximal-quantile", float, "npi-prox: the share of guidance that is dropped")
    group.add_argument(
        "--mask-from",
        metavar="MASKS",
        help="attention (of the focus words), difference (of noise, against --source), file (of "
        "--mask), joined with + (either), * (both) and ~ (not) (default: the method's)",
    )
    group.add_argument(
        "--mask-relative-to",
        choices=["map", "object"],
        help="whose strongest attention the threshold is a share of; object: of each of several, "
        "so that all of them change (default: map)",
    )
    _number(group, "--mask-dilate", int, "cells by which to grow the mask")
    _number(group, "--mask-feather", int, "cells over which to soften its edge")
    _number(group, "--mask-draws", int, "noises for the mask of differences")
    _number(group, "--mask-clamp", float, "times its mean, where that map is cut")
    group.add_argument(
        "--paste-back", action="store_true", help="the picture's own pixels outside the mask"
    )
    masks = group.add_mutually_exclusive_group()
    masks.add_argument("--mask", metavar="FILE", help="your own mask: white where to edit")
    masks.add_argument("--no-mask", action="store_true", help="edit everywhere")
    group.add_argument(
        "--reuse-tuning",
        action="store_true",
        help="keep an inversion's tuning for another prompt or ω",
    )
    return group


def _number(parser: argparse.ArgumentParser, flag: str, kind: type, meaning: str) -> None:
    default = getattr(DEFAULTS, flag[2:].replace("-", "_"))
    parser.add_argument(
        flag,
        type=kind,
        metavar=str(default),
        default=argparse.SUPPRESS,
        help=f"{meaning} (default: {default})",
    )
