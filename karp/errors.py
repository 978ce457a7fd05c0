"""The exceptions that karp raises: one class for each thing that a user can do about an error.

    KarpError
     ├─ SettingError (ValueError)       an argument, option or environment variable: change it
     ├─ ShapeError (ValueError)         arrays that do not fit the operation: change their shapes
     ├─ GraphError (RuntimeError)       the engine is asked for what it cannot do: change the call
     ├─ NotFiniteError (ArithmeticError)  a NaN or an infinity appeared: look at the named operation or batch
     ├─ DataError (ValueError)          a file or table cannot be used: repair it
     ├─ ProgramError (RuntimeError)     the training loop breaks one of its rules: change the program
     ├─ RefusedError                    the run does not take this worker: make program or keys and run agree
     ├─ ProtocolError                   what arrived is not a karp message: find who sent it
     ├─ LostError                       a peer is gone or silent: look at the named process
     ├─ RunError                        the run failed elsewhere: look at the named worker
     ├─ RecordError (OSError)           the run's directory cannot be used: free or change it
     └─ MissingError (ImportError)      an optional package is absent: install the named extra

Every message says what is wrong, where, and what to do.
"""


class KarpError(Exception):
    """The base class of every error that karp raises on purpose."""


class SettingError(KarpError, ValueError):
    """An argument, an option or an environment variable has a value karp cannot use."""


class ShapeError(KarpError, ValueError):
    """The shapes of arrays do not fit the operation; the message names it and every shape."""


class GraphError(KarpError, RuntimeError):
    """The engine is asked for something it cannot do, such as writing into a node of a graph."""


class NotFiniteError(KarpError, ArithmeticError):
    """A NaN or an infinity appeared; the message names where."""


class DataError(KarpError, ValueError):
    """A file or a table cannot be used; the message names file, line and column where there are any."""


class ProgramError(KarpError, RuntimeError):
    """The program breaks a rule of the training loop, such as a shard given to backward twice."""


class RefusedError(KarpError):
    """The run does not take this worker, because program or keys and run disagree; both values are named."""


class ProtocolError(KarpError):
    """Data that arrived is not a message of karp's protocol; it has changed nothing."""


class LostError(KarpError):
    """A peer is gone, or has been silent for longer than its deadline."""


class RunError(KarpError):
    """The run ended as a failure, for a reason outside this process; the message names it."""


class RecordError(KarpError, OSError):
    """The run's directory cannot be created, read or written."""


class MissingError(KarpError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""
