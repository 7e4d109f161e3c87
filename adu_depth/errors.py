"""The one error a user's input can cause; the command line prints it without a traceback and exits with 2."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message names it, says what was expected and what came."""


class SharedInputError(InputError):
    """Raised in every process of a run alike, after they have told each other: the first alone says it."""
