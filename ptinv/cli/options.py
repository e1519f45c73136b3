"""The commands, and what can be given to each. Most options are made from the fields of `Settings`.

Only the settings that are given end up in the namespace, so that a method's own defaults hold for
the rest. Nothing here imports torch, so that help and misspelt options are answered at once.
"""

import argparse
from contextlib import suppress
from functools import partial
from typing import Any

from .. import __version__
from ..errors import line
from ..settings import ABOUT, ATTENTION, DEFAULT, DEFAULTS, EDIT, INVERSION, Gate, names_of

Option = tuple[str, dict[str, Any]]  # its names in one text, and what `add_argument` takes
Options = list[Option | list[Option]]  # those in a list of their own exclude each other


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line with exit code 2."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {line(message)}; see {self.prog} --help\n")


def build() -> Parser:
    """Makes the parser of the whole command line."""
    about = "Text-driven editing of real pictures by Prompt Tuning Inversion."
    parser = Parser(prog="ptinv", description=about)
    parser.add_argument("--version", action="version", version=f"ptinv {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (summary, description, options) in COMMANDS.items():
        add(commands.add_parser(name, help=summary, description=description), options)
    return parser


def add(parser: argparse.ArgumentParser, options: Options) -> None:
    """Gives a parser some options."""
    for option in options:
        parent = parser.add_mutually_exclusive_group() if isinstance(option, list) else parser
        for names, how in option if isinstance(option, list) else [option]:
            parent.add_argument(*names.split(), **how)


def flag(name: str) -> str:
    """A setting's name as it is spelt on the command line."""
    return "--" + name.replace("_", "-")


def setting(name: str, meaning: str | None = None) -> Option:
    """The option of a setting; `meaning` is for a command where it is not the field's own."""
    about, default = ABOUT[name], DEFAULTS[name]
    how: dict[str, Any] = dict(help=meaning or about["meaning"], default=argparse.SUPPRESS)
    if default is False:
        return flag(name), how | dict(action="store_true")
    if default not in (None, "", "auto", {}) and "(default: " not in how["help"]:
        how["help"] += f" (default: {default})"
    if name in ("reweight", "cross_replace"):
        how["action"] = "append"
    kind = type(default) if isinstance(default, int | float) else str
    how |= dict(metavar=about["metavar"], choices=about["choices"], type=READ.get(name, kind))
    return flag(name), how


def group(name: str) -> Options:
    """The options of a group of settings."""
    return [[setting(n), NO_MASK] if n == "mask" else setting(n) for n in names_of(name)]


def weight(text: str) -> tuple[str, float]:
    """Reads a word with its factor, such as yellow=2."""
    word, _, factor = text.rpartition("=")
    with suppress(ValueError):
        if word.strip():
            return word, float(factor)
    raise argparse.ArgumentTypeError(f"{text!r} is not WORD=FACTOR, such as yellow=2")


def gate(
    text: str, kind: type = float, sign: str = ":", wanted: str = "a share of the steps, or FROM:TO"
) -> Any:
    """Reads a share of the steps, such as 0.8, or a span of them, such as 0.2:0.6."""
    with suppress(ValueError):
        values = tuple(map(kind, text.split(sign)))
        return values if len(values) > 1 else values[0]
    raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")


def word_gate(text: str) -> tuple[str, Gate]:
    """Reads a gate for all words, or tiger=0.2:0.6 for one."""
    word, _, rest = text.rpartition("=")
    return word.strip() or DEFAULT, gate(rest)


size = partial(gate, kind=int, sign="x", wanted="a side in pixels, such as 768, or WIDTHxHEIGHT")
READ = dict(size=size, reweight=weight, cross_replace=word_gate, self_replace=gate)
READ["guidance_gate"] = gate

# fmt: off
STORED = "picture", dict(metavar="PICTURE", help="or what `ptinv invert` made of it")
PROMPT = "prompt", dict(metavar="PROMPT")
MAYBE_PROMPT = "prompt", dict(metavar="PROMPT", nargs="?")
OUTPUT = "-o --output", dict(metavar="OUT.png", required=True)
METHOD = [
    ("--method", dict(help="see `ptinv methods` (default: auto for an edit, else pti; or a stored "
        "inversion's own)")),
    ("--fast", dict(dest="method", action="store_const", const="fast", help="as --method fast: "
        "auto for a fraction of the work")),
]
NO_MASK = "--no-mask", dict(help="edit everywhere", dest="mask", action="store_const", const=None,
    default=argparse.SUPPRESS)
NO_RECORD = "--no-record", dict(action="store_true",
    help="write the picture alone: a PNG also says how it was made, with the prompt")
MODEL = [
    ("--model", dict(metavar="PATH", help="a diffusers-layout folder or an original .safetensors "
        "file of Stable Diffusion v1 (default: $PTINV_MODEL, else the embedded tiny model)")),
    ("--tokenizer", dict(metavar="DIR", help="its tokenizer, if not beside the file")),
    ("--device", dict(help="cuda or cpu (default: cuda where there is one)")),
    ("--dtype", dict(choices=["auto", "float32", "bfloat16", "float16"], help="of the networks "
        "(default: auto, float16 on cuda, bfloat16 on a cpu that has instructions for it)")),
    ("--compile", dict(action="store_true", help="compile the UNet: for many edits of one size")),
    [("--quiet", dict(action="store_true", help="say only what is wrong")),
     ("--verbose", dict(action="store_true", help="also say what it cost"))],
]
OF_AN_EDIT = [METHOD, *group(INVERSION), *group(ATTENTION), *group(EDIT)]

# by name: a summary, a description and the options; a function in commands.py does the rest
COMMANDS = {
    "edit": ("edit a picture",
        """A mask limits where the edit may show; --mask-from joins several, as in
        "attention*~file". --show-mask draws it: red where the edit shows, dim where it does not.
        --paste-back returns the picture's own pixels, to the byte, where there is no red at all.
        For another prompt or ω a file of `ptinv invert` is tuned again, unless --reuse-tuning.""",
        [STORED, ("prompt", dict(metavar="PROMPT", help='what it should become: "a yellow car"')),
         OUTPUT,
         ("--show-mask", dict(metavar="FILE.png", help="also write the mask over the picture")),
         NO_RECORD, *MODEL, *OF_AN_EDIT]),
    "invert": ("do an edit's long work once, for many edits",
        """The file that is written takes the picture's place in edit and reconstruct. With a
        PROMPT it also holds the tuning for it; other prompts are tuned for when needed.""",
        [("picture", dict(metavar="PICTURE")), MAYBE_PROMPT,
         ("-o --output", dict(metavar="X.safetensors", required=True)),
         *MODEL, METHOD, *group(INVERSION)]),
    "reconstruct": ("invert a picture and walk back without an edit; prints PSNR",
        """Prints the PSNR against the picture at the model's size, and the VAE's, which is the
        ceiling. --method also takes ddim (sampling with the prompt alone) and vae.""",
        [STORED, MAYBE_PROMPT, OUTPUT, NO_RECORD, *MODEL, *OF_AN_EDIT]),
    "again": ("repeat an edit from the PNG that it made",
        """A PNG carries a record of how it was made; JPEG and WebP cannot. The same bytes are
        promised on the same machine with the same threads, precision and PyTorch; those that
        differ are named. The device and dtype are those of the first time unless given.""",
        [("edited", dict(metavar="EDITED.png")),
         ("picture", dict(metavar="PICTURE", help="what it was made of")),
         ("-o --output", dict(metavar="OUT.png", help="(default: EDITED-again.png beside "
            "EDITED.png, if there is no such file yet)")),
         setting("mask", "the mask, if one was given then"), NO_RECORD, *MODEL]),
    "generate": ("make a picture from noise",
        """With --source the picture is an edit, by Prompt-to-Prompt, of the one that the source
        text makes of the same noise.""",
        [PROMPT, OUTPUT, setting("source", "the prompt of the picture to edit"),
         ("--show-source", dict(metavar="FILE.png", help="also write the source's picture")),
         setting("steps", "of DDIM"), setting("size"), setting("guidance", "ω"),
         setting("guidance_gate"), setting("negative"), setting("seed", "of the noise"),
         NO_RECORD, *MODEL, NO_MASK, *group(ATTENTION)]),
    "methods": ("list the methods with their defaults", None, []),
}
# fmt: on
