"""The cells of the methods' table: each makes, from a task, what the walk plugs in.

What is known only once the picture is inverted comes as `found`, its tensors by name. A method with
a source's branch may be walked on that branch alone, so the cells go by the branches of the task.
"""

import torch
from torch import Tensor

from . import ddim
from .editing import conditions, proximal, rules
from .editing import prompt_to_prompt as p2p
from .editing.alignment import word_tokens
from .sampling import Advance, After, Condition, ControlAt, Guide, ancestral, deterministic
from .task import SIDE_BY_SIDE, Task

Found = dict[str, Tensor]  # an inversion's tensors by name, on the model's device


def target_alone(task: Task, found: Found) -> Condition:
    """c* at every step."""
    return conditions.constant(task.null, task.target)


def tuned_and_target(task: Task, found: Found) -> Condition:
    """Eq. 9."""
    return conditions.interpolated(task.null, found["embeddings"], task.target, task.settings.eta)


def of_branches(task: Task, **conditions_of: Condition) -> Condition:
    """A condition a branch, for those that are walked."""
    return conditions.side_by_side(*(conditions_of[branch] for branch in task.branches))


def each_its_text(task: Task, found: Found) -> Condition:
    """The source's context on its branch, c* on the target's."""
    source = conditions.constant(task.null, task.source)
    return of_branches(task, source=source, target=target_alone(task, found))


def under_tuned_null(task: Task, found: Found) -> Condition:
    """Each its text, against ∅_t."""
    null = found["embeddings"]
    source, target = (conditions.tuned_null(null, text) for text in (task.source, task.target))
    return of_branches(task, source=source, target=target)


def against_the_source(task: Task, found: Found) -> Condition:
    """The source's context in ∅'s place: guidance then cancels on the source's branch."""
    null = task.source
    source, target = (conditions.constant(null, text) for text in (task.source, task.target))
    return of_branches(task, source=source, target=target)


def tuned_beside_target(task: Task, found: Found) -> Condition:
    """c_t on the source's branch, Eq. 9 on the target's."""
    source = conditions.tuned(task.null, found["embeddings"])
    return of_branches(task, source=source, target=tuned_and_target(task, found))


def alone(task: Task) -> list[ControlAt]:
    return []


def shared_attention(task: Task) -> list[ControlAt]:
    """Prompt-to-Prompt, from the source's branch to the target's."""
    if task.branches != SIDE_BY_SIDE:
        return []
    settings, tokenizer = task.settings, task.model.tokenizer
    change = p2p.between(tokenizer, settings.source, task.prompt, settings.align)
    words = word_tokens([word.positions for word in tokenizer.read(task.prompt)])
    steps, cells = len(task.rungs), task.cells_up_to(settings.self_cells)
    control = p2p.prompt_to_prompt(
        change, task.gates, words, steps, settings.self_replace, cells, task.branches
    )
    return [control]


def plain(task: Task) -> Guide:
    """Eq. 5."""
    return ddim.guide


def proximal_guidance(task: Task) -> Guide:
    return proximal.proximal_guide(task.settings.proximal_quantile, task.settings.proximal)


def as_set(task: Task) -> Advance:
    """DDIM's step or the ancestral one, as the settings have it."""
    if task.settings.sampler == "ddim":
        return deterministic
    return ancestral(task.noise(stream=1))


def mean_step(task: Task) -> Advance:
    """The ancestral step without the noise that it would add."""
    return ancestral(lambda k: torch.zeros(()))


def nothing(task: Task, found: Found) -> tuple[After, ...]:
    return ()


def latent_interpolation(task: Task, found: Found) -> tuple[After, ...]:
    """Eq. 10."""
    return (rules.interpolated(found["trajectory"], task.settings.eta),)


def low_frequencies(task: Task, found: Found) -> tuple[After, ...]:
    return (rules.low_frequencies(found["trajectory"], task.settings.low_pass),)


def noise_maps(task: Task, found: Found) -> tuple[After, ...]:
    return (rules.added(found["residuals"]),)


def offsets_of_the_source(task: Task, found: Found) -> tuple[After, ...]:
    """Direct inversion: only the source's branch is put back on the trajectory."""
    return (rules.added(found["residuals"], rows=[task.branches.index("source")]),)


def pulled_back(task: Task, found: Found) -> tuple[After, ...]:
    return (proximal.pulled_back(found["trajectory"], task.settings.proximal_quantile),)
