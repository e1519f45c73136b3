"""What holds of any input: mask expressions, gates, alignments and sizes."""

import math
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as any_

from ptinv.cli.options import gate
from ptinv.core.pictures import fit
from ptinv.methods.controls import interval, opened
from ptinv.methods.masks import combined
from ptinv.methods.prompt_to_prompt import needleman_wunsch
from ptinv.settings import MASKS, Settings

# the same examples on every machine, however long one takes
settings.register_profile("ptinv", derandomize=True, database=None, deadline=None)
settings.load_profile("ptinv")
SHARES = any_.floats(0, 1)
FACTOR = any_.tuples(any_.sampled_from(MASKS), any_.integers(0, 3), any_.sampled_from(["", " "]))
SUM_OF_PRODUCTS = any_.lists(any_.lists(FACTOR, min_size=1, max_size=4), min_size=1, max_size=4)
TOKENS = any_.lists(any_.integers(0, 3), max_size=12)


def spelt(products) -> str:
    """An expression of masks, such as "attention*~file + difference"."""
    factors = [[f"{space}{'~' * n}{name}{space}" for name, n, space in p] for p in products]
    return "+".join("*".join(product) for product in factors)


@given(SUM_OF_PRODUCTS, any_.lists(any_.sampled_from([0.0, 0.25, 1.0]), min_size=3, max_size=3))
def test_an_expression_is_the_largest_of_its_smallest(products, levels):
    by_name = dict(zip(MASKS, levels, strict=True))
    wanted = max(min(1 - by_name[m] if n % 2 else by_name[m] for m, n, _ in p) for p in products)
    masks = {name: torch.full((1, 1, 2, 2), level) for name, level in by_name.items()}
    assert combined(spelt(products), masks).eq(wanted).all()


@given(SUM_OF_PRODUCTS)
def test_the_names_of_an_expression_are_those_it_is_made_of(products):
    names = {name for product in products for name, _, _ in product} - {"file"}
    expression = spelt(
        [[f for f in p if f[0] != "file"] or [("attention", 0, "")] for p in products]
    )
    assert Settings(mask_from=expression).mask_names - {"attention"} == names - {"attention"}


@given(SHARES, any_.integers(1, 500))
def test_a_gate_and_the_one_that_goes_on_from_it_share_out_the_steps(share, steps):
    for k in range(1, steps + 1):
        first, rest = (bool(opened(interval(g), k, steps)) for g in (share, (share, 1.0)))
        assert first != rest


@given(any_.lists(SHARES, min_size=2, max_size=2).map(sorted))
def test_a_gate_is_read_as_it_is_written(ends):
    assert gate(":".join(map(repr, ends))) == tuple(ends)
    assert Settings(self_replace=gate(repr(ends[0]))).self_replace == ends[0]


@given(TOKENS, TOKENS)
def test_an_alignment_pairs_equal_tokens_in_order(source, target):
    answers = needleman_wunsch(source, target)
    pairs = [(old, new) for new, old in enumerate(answers) if old >= 0]
    assert len(answers) == len(target) and all(source[old] == target[new] for old, new in pairs)
    assert all(before < after for (before, _), (after, _) in pairwise(pairs))
    assert needleman_wunsch(source, source) == [*range(len(source))]


@settings(max_examples=300)
@given(
    any_.integers(1, 20_000),
    any_.integers(1, 20_000),
    any_.integers(1, 4096),
    any_.sampled_from([1, 8, 64]),
)
def test_a_size_fits_the_networks_and_turns_with_the_picture(width, height, side, multiple):
    fitted = fit((width, height), side**2, multiple)
    assert fit((height, width), side**2, multiple) == fitted[::-1]
    assert min(fitted) > 0 and all(length % multiple == 0 for length in fitted)
    wanted = [side * math.sqrt(width / height), side * math.sqrt(height / width)]
    assert all(abs(a - b) <= multiple + 1e-6 for a, b in zip(fitted, wanted, strict=True))
