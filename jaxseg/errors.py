"""Base class of the errors that a user can correct."""


class UserError(Exception):
    """Raised for an unsuitable file, field or machine; the message names it and what was expected.

    The command line prints the message in one line, without a traceback.
    """
