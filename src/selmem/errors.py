"""The one exception that means "the input is wrong, not the program"."""


class InputError(ValueError):
    """Wrong input from the user: the command line prints it on one line and exits with status 2.

    Say what was expected, what came, and how to mend it.
    """
