"""Several edits at once: each runs as it would alone, and their calls of the UNet are made as one.

An edit spends nearly all of its time in the UNet, and a GPU takes little longer for eight latents
than for one. So each edit has a thread of its own, and a model that waits at every call until all
edits that are not done have come to one; what they ask for goes through the UNet as one batch, of
whatever timesteps, texts and attention controls. An edit's numbers are those that it has alone but
for the order of sums. Calls that a gradient goes back through, a third of `pti`'s, are made alone.
Filters of warnings are the process's, so of some remarks one is made for all.
"""

import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

import ptinv
from ptinv import Control
from ptinv.core.attention import QKV, Place

T = TypeVar("T")


def together(
    model: ptinv.StableDiffusion, calls: Sequence[Callable[[ptinv.StableDiffusion], T]]
) -> list[T | Exception]:
    """Results of some calls, or the exceptions that they raised. Each is given a model, and
    should do with it what takes long: `lambda model: ptinv.edit(model, picture, prompt)`."""
    meeting = Meeting(model, range(len(calls)))

    def one(i: int) -> T | Exception:
        try:
            return calls[i](meeting.model_of(i))
        except Exception as error:
            return error
        finally:
            meeting.leave(i)

    with warnings.catch_warnings(), ThreadPoolExecutor(max(1, len(calls))) as pool:
        try:
            return list(pool.map(one, range(len(calls))))
        except BaseException:  # Ctrl-C: the others end at their next call
            meeting.end()
            raise


class Ended(Exception):
    """The call's meeting has ended."""


class Request(NamedTuple):
    """One edit's call: latents (b, c, h, w) at a timestep, under embeddings (b, 77, d)."""

    z: Tensor
    t: int
    context: Tensor
    control: Control | None


class Meeting:
    """Meeting of edits, each of which waits for the others' calls."""

    def __init__(self, model: ptinv.StableDiffusion, members: Sequence[int]):
        self.model, self.members = model, set(members)
        self.asked: dict[int, Request] = {}
        self.answers: dict[int, Tensor | Exception] = {}
        self.changed = threading.Condition()

    def model_of(self, member: int) -> ptinv.StableDiffusion:
        """The model, whose calls without a gradient are made here."""
        meeting = self

        class Member(type(self.model)):
            def predict_noise(
                self, z: Tensor, t: int, context: Tensor, control: Control | None = None
            ) -> Tensor:
                if torch.is_grad_enabled() and (z.requires_grad or context.requires_grad):
                    return super().predict_noise(z, t, context, control)
                return meeting.ask(member, Request(z, t, context, control))

        return Member(**vars(self.model))

    def ask(self, member: int, request: Request) -> Tensor:
        """The prediction, once everybody who has not left has asked. Raises what the call did."""
        with self.changed:
            self.asked[member] = request
            self._answer_if_all_have_asked()
            self.changed.wait_for(lambda: member in self.answers or member not in self.members)
            answer = self.answers.pop(member, None)
        if answer is None:
            raise Ended("the others were interrupted")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def leave(self, member: int) -> None:
        """Nobody waits for that one any more."""
        with self.changed:
            self.members.discard(member)
            self._answer_if_all_have_asked()

    def end(self) -> None:
        """Sends everybody away."""
        with self.changed:
            self.members.clear()
            self.changed.notify_all()

    def _answer_if_all_have_asked(self) -> None:
        if not self.asked or self.asked.keys() != self.members:
            return
        by_size: dict[tuple, list[int]] = {}  # latents of one size go through the UNet at once
        for member, request in self.asked.items():
            by_size.setdefault((request.z.shape[1:], request.context.shape[1:]), []).append(member)
        for some in by_size.values():
            self._answer(some)
        self.asked.clear()
        self.changed.notify_all()

    def _answer(self, some: list[int]) -> None:
        """Answers several by one call; where that fails, as in too little memory, by halves."""
        try:
            eps = predicted(self.model, [self.asked[member] for member in some])
            self.answers |= zip(some, eps, strict=True)
        except Exception as error:
            if len(some) == 1:
                self.answers[some[0]] = error
                return
        else:
            return
        half = len(some) // 2
        self._answer(some[:half])
        self._answer(some[half:])


@torch.no_grad()
def predicted(model: ptinv.StableDiffusion, requests: Sequence[Request]) -> Sequence[Tensor]:
    """ε_θ of several requests for latents of one size, by one call of the UNet."""
    counts = [len(request.z) for request in requests]
    each = [request.t for request in requests for _ in range(len(request.z))]
    t = torch.tensor(each, device=model.device)
    z, context = (torch.cat([request[i] for request in requests]) for i in (0, 2))
    parts = [(request.control, count) for request, count in zip(requests, counts, strict=True)]
    control = Parts(parts) if any(part for part, _ in parts) else None
    return model.predict_noise(z, t, context, control).split(counts)


@dataclass(frozen=True)
class Parts(Control):
    """Controls of several edits, each for the rows of its own in the batch."""

    parts: Sequence[tuple[Control | None, int]]  # with the number of rows

    def inputs(self, q: Tensor, k: Tensor, v: Tensor, place: Place) -> QKV:
        """Each control's own, of its own rows."""
        counts = [count for _, count in self.parts]
        rows = zip(*(x.split(counts) for x in (q, k, v)), strict=True)
        made = [
            control.inputs(*qkv, place) if control else qkv
            for (control, _), qkv in zip(self.parts, rows, strict=True)
        ]
        q, k, v = (torch.cat(x) for x in zip(*made, strict=True))
        return q, k, v

    def wants(self, place: Place) -> bool:
        """True if any of them does."""
        return any(control is not None and control.wants(place) for control, _ in self.parts)

    def __call__(self, probabilities: Tensor, place: Place) -> Tensor:
        """Each control's own, where it wants them."""
        rows = probabilities.split([count for _, count in self.parts])
        return torch.cat(
            [
                control(own, place) if control is not None and control.wants(place) else own
                for (control, _), own in zip(self.parts, rows, strict=True)
            ]
        )
