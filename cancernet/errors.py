"""What went wrong on the user's side, said in one line."""


class InputError(Exception):
    """Something given to the program cannot be used.

    The message is one line for the person at the terminal: what is wrong, where (the file, option or value as it was
    received) and the way out. The command line prints it without a traceback and leaves with status 2.
    """
