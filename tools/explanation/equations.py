"""The equations of a page as MathML, and the functions that compute them.

MathML is what browsers typeset by themselves. Each equation is one expression of the few builders
below, so it reads here much as it does on the page.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ptinv
from ptinv.core import ddim, model, pti, sampling
from ptinv.methods import masks, source
from ptinv.metrics import psnr

PACKAGE = Path(ptinv.__file__).parent


class Equation(NamedTuple):
    """A panel's equation, in a few lines, with the functions that compute it."""

    lines: tuple[str, ...]  # of MathML
    computed_by: tuple[Callable[..., Any], ...]
    python: str  # that has it, of a model, a picture, a prompt and what the ones before made

    @property
    def functions(self) -> list[tuple[str, str]]:
        """Each function's name, as a reader would import it, and its file in the repository."""
        return [(named(function), file_of(function)) for function in self.computed_by]


def named(function: Callable[..., Any]) -> str:
    """A function's name after its module's, such as pti.tune, a method's after its class's, and
    after the package's where it is public."""
    if function.__name__ in ptinv.__all__:
        return f"{PACKAGE.name}.{function.__name__}"
    if "." in function.__qualname__:
        return function.__qualname__
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


def file_of(function: Callable[..., Any]) -> str:
    """The file that a function is defined in, relative to the repository."""
    path = Path(inspect.getsourcefile(inspect.unwrap(function)) or "")
    return (Path(PACKAGE.name) / path.relative_to(PACKAGE)).as_posix()


def row(*parts: str) -> str:
    """Parts side by side."""
    return f"<mrow>{''.join(parts)}</mrow>"


def i(name: str) -> str:
    """A variable."""
    return f"<mi>{name}</mi>"


def o(sign: str) -> str:
    """An operator."""
    return f"<mo>{sign}</mo>"


def n(number: str) -> str:
    """A number."""
    return f"<mn>{number}</mn>"


def sub(base: str, below: str) -> str:
    """A base with an index."""
    return f"<msub>{base}{below}</msub>"


def sup(base: str, above: str) -> str:
    """A base with an exponent."""
    return f"<msup>{base}{above}</msup>"


def both(base: str, below: str, above: str) -> str:
    """A base with an index and an exponent."""
    return f"<msubsup>{base}{below}{above}</msubsup>"


def frac(above: str, below: str) -> str:
    """A fraction."""
    return f"<mfrac>{above}{below}</mfrac>"


def root(*inside: str) -> str:
    """A square root."""
    return f"<msqrt>{''.join(inside)}</msqrt>"


def accented(letter: str) -> str:
    """A variable that bears a bar, a tilde or a hat, which are characters of their own: fonts that
    are not made for mathematics lay an accent of MathML across the letter."""
    return f'<mi class="accented">{letter}</mi>'


def call(function: str, *arguments: str) -> str:
    """A function of arguments."""
    inside = o(",").join(arguments)
    return row(function, o("("), inside, o(")"))


def norm(*inside: str) -> str:
    """A norm."""
    return row(o("‖"), *inside, o("‖"))


def line(spoken: str, *parts: str) -> str:
    """An equation on a line of its own; spoken: the same in words."""
    return f'<math display="block" alttext="{spoken}">{row(*parts)}</math>'


ZERO, ONE, TWO = n("0"), n("1"), n("2")
T, T1 = i("t"), row(i("t"), o("−"), ONE)
Z, C, ETA, OMEGA, EMPTY, MASK = i("z"), i("c"), i("η"), i("ω"), o("∅"), i("M")
EPS, F, STAR = i("ε"), sub(i("f"), i("θ")), o("∗")
TILDE, ABAR, ZBAR, XHAT = map(accented, ("ε̃", "ᾱ", "z̄", "x̂"))
CT, CSTAR = sub(C, T), sup(C, STAR)


def signal(at: str) -> str:
    """√ᾱ."""
    return root(sub(ABAR, at))


def noise(at: str) -> str:
    """√(1-ᾱ)."""
    return root(ONE, o("−"), sub(ABAR, at))


def on_the_trajectory(at: str) -> str:
    """z*."""
    return both(Z, at, STAR)


EQUATIONS = {
    "round_trip": Equation((
        line("z 0 is ENC of x", sub(Z, ZERO), o("="), call(i("ENC"), i("x"))),
        line("x hat is DEC of z 0", XHAT, o("="), call(i("DEC"), sub(Z, ZERO))),
        line("PSNR is 10 log 10 of 255 squared over the mean squared error of x hat",
             i("PSNR"), o("="), n("10"), sub(i("log"), n("10")),
             frac(sup(n("255"), TWO), call(i("MSE"), i("x"), XHAT))),
    ), (model.StableDiffusion.encode, model.StableDiffusion.decode, psnr),
        'ptinv.reconstruct(model, picture, method="vae")'),
    "up": Equation((
        line("epsilon is predicted for z star t minus 1, at timestep t and without a prompt",
             EPS, o("="), call(sub(EPS, i("θ")), on_the_trajectory(T1), T, EMPTY)),
        line("f theta is z star t minus 1, less its share of epsilon, over root alpha bar",
             F, o("="), frac(row(on_the_trajectory(T1), o("−"), noise(T1), EPS), signal(T1))),
        line("z star t is f theta and epsilon in the shares of timestep t",
             on_the_trajectory(T), o("="), signal(T), F, o("+"), noise(T), EPS),
    ), (pti.ddim_inversion, ddim.predict_z0, ddim.step),
        'inversion = ptinv.invert(model, picture, prompt{options})'),
    "guidance": Equation((
        line("epsilon tilde is epsilon without the prompt, plus omega times what the prompt adds",
             TILDE, o("="), sub(EPS, EMPTY), o("+"), OMEGA, o("("), sub(EPS, C), o("−"),
             sub(EPS, EMPTY), o(")")),
        line("z bar t minus 1 is the DDIM step down from z bar t with epsilon tilde",
             sub(ZBAR, T1), o("="), signal(T1),
             frac(row(sub(ZBAR, T), o("−"), noise(T), TILDE), signal(T)), o("+"), noise(T1), TILDE),
    ), (ddim.guide, ddim.step, sampling.sample),
        'ptinv.reconstruct(model, inversion, method="ddim", guidance={guidance:g})'),
    "tuning": Equation((
        line("c t goes a step of size beta down the gradient of the squared distance of z star "
             "t minus 1 to where the guided step lands with c t",
             CT, o("←"), CT, o("−"), i("β"), sub(o("∇"), CT),
             sup(norm(on_the_trajectory(T1), o("−"), call(sub(ZBAR, T1), CT)), TWO)),
    ), (pti.tune, pti.guided_step, pti.gradient),
        'ptinv.reconstruct(model, inversion, method="pti")'),
    "interpolation": Equation((
        line("the embedding of step t is eta times c star plus 1 minus eta times c t",
             sub(accented("ĉ"), T), o("="), ETA, CSTAR, o("+"), o("("), ONE, o("−"), ETA, o(")"),
             CT),
    ), (pti.interpolate, ptinv.edit),
        'ptinv.edit(model, inversion, prompt, method="pti", eta={eta:g}{more})'),
    "attention": Equation((
        line("A is the softmax of Q K transposed over root d",
             i("A"), o("="), call(i("softmax"), frac(row(i("Q"), sup(i("K"), o("⊤"))),
             root(i("d"))))),
        line("z t minus 1 becomes M times itself plus 1 minus M times z star t minus 1",
             sub(Z, T1), o("←"), MASK, sub(Z, T1), o("+"), o("("), ONE, o("−"), MASK, o(")"),
             on_the_trajectory(T1)),
    ), (ptinv.attention_maps, masks.attention_mask, pti.blend),
        "film = [step.mask for step in ptinv.steps("
        'model, inversion, prompt, method="pti", eta={eta:g}{more})]'),
    "reading": Equation((
        line("the loss of a text is the mean squared error of the noise predicted under it",
             call(i("loss"), i("text")), o("="), sub(i("mean"), row(T, o(","), EPS)),
             sup(norm(EPS, o("−"), call(sub(EPS, i("θ")), sub(Z, T), T, i("text"))), TWO)),
        line("z t is z 0 and epsilon in the shares of timestep t",
             sub(Z, T), o("="), signal(T), sub(Z, ZERO), o("+"), noise(T), EPS),
    ), (source.infer, source.losses_of, masks.noise_difference),
        'ptinv.infer_source(model, picture, prompt)'),
}  # fmt: skip
