"""Pairs of prompts for the tests of Prompt-to-Prompt."""

import pytest
from pairs import LONGER, SOURCE, SWAPPED, Pair


@pytest.fixture
def same(small_model):
    return Pair(small_model, SOURCE, SOURCE)


@pytest.fixture
def swap(small_model):
    return Pair(small_model, SOURCE, SWAPPED)


@pytest.fixture
def longer(small_model):
    return Pair(small_model, SOURCE, LONGER)
