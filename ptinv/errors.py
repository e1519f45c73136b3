"""The one kind of error that is the caller's to mend."""


class InputError(ValueError):
    """Something that was given cannot be used; the message is a sentence that says why."""
