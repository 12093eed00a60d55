"""The one exception family whose message is written for the user: it names the cause and the way out."""


class SqueezeBertError(Exception):
    """Something the user can mend. The command line prints its message without a traceback."""


class TableError(SqueezeBertError):
    """A table of text that cannot be read as it is: names the file, the line and the cause."""


class EmptyTableError(TableError):
    """A table without a row."""


class DependencyError(SqueezeBertError):
    """A package of an extra is needed and not installed: names the `pip install` that brings it."""


class FolderError(SqueezeBertError):
    """A checkpoint or exported folder that is missing, incomplete, damaged or of another kind."""


class WorkerError(SqueezeBertError):
    """Worker processes, here or in a cluster, that failed or were killed: says why, and how to go on."""


class OptionError(SqueezeBertError):
    """An option whose value cannot be used: names the option, the value and what is accepted."""


class DivergedError(OptionError):
    """Training that ran away: what it had made is of no use, and another learning rate is."""


class DataError(SqueezeBertError, ValueError):
    """Texts or labels handed over in Python that cannot be used: names the place and what is accepted."""


class ParameterError(OptionError, ValueError):
    """An option handed over in Python whose value cannot be used: a ValueError, as scikit-learn's users expect."""
