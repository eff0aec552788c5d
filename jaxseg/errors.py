"""What goes wrong that the user can mend."""


class UserError(Exception):
    """A file, a field or a machine that cannot serve; the message names it and what was expected.

    The command line shows it as one line, without a traceback.
    """
