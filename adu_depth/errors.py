"""The one error a user's input can cause; the command line prints it without a traceback and exits with 2."""

LONGEST = 6000  # letters of a message; a table of layouts has two thousand


class InputError(ValueError):
    """Something the user gave cannot be used. The message names it, says what was expected and what came.

    A message that quotes a whole file, or a name without end, is shortened in its middle.
    """

    def __init__(self, message: str = "") -> None:
        if len(message) > LONGEST:
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 4 :]}"
        super().__init__(message)


class SharedInputError(InputError):
    """Raised in every process of a run alike, after they have told each other: the first alone says it."""
