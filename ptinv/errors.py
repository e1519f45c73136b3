"""The errors that are the caller's to mend: each message is one sentence fit for a user."""


class InputError(ValueError):
    """Something given cannot be used: the message is what is wrong and what to do."""


class CheckpointError(InputError):
    """A checkpoint that is not whole, or not of Stable Diffusion v1."""


class PictureError(InputError):
    """A picture that cannot be used."""


def not_finite(what: str) -> FloatingPointError:
    """The error for numbers that overflowed: a damaged checkpoint, or float16's range."""
    return FloatingPointError(
        f"{what} is not finite (NaN or infinity): the checkpoint may be damaged, "
        "or try --dtype float32 or bfloat16"
    )
