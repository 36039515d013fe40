"""The exceptions that widespectrum raises.

    WideSpectrumError          everything below; the command line prints it as one sentence
    ├── InputError             the user's file, option or value is wrong (exit code 2)
    │   ├── UnknownNameError   a name that is in no table; the message lists the nearest ones
    │   └── MissingExtraError  the name is known, its packages are not installed
    ├── RunFolderError         a run folder is damaged, locked, or belongs to another run (exit code 2)
    ├── ModelError             a generator, reward model or judge failed; retried on the next run (exit code 1)
    │   └── GeneratorStoppedError  it answers nothing more, whatever it is asked
    ├── BudgetSpentError       no further call fits into the budget; the next run goes on (exit code 1)
    └── HubError               the Hub, or the way to it, failed in a manner that passes (exit code 1)

Every message says what was expected, what came, and what to do.
"""

from __future__ import annotations

__all__ = [
    "BudgetSpentError",
    "GeneratorStoppedError",
    "HubError",
    "InputError",
    "MissingExtraError",
    "ModelError",
    "RunFolderError",
    "UnknownNameError",
    "WideSpectrumError",
]


class WideSpectrumError(Exception):
    """Base of every error of this package."""


class InputError(WideSpectrumError, ValueError):
    """A value, option or file of the user is not what was expected."""


class UnknownNameError(InputError):
    """A name that is registered nowhere."""


class MissingExtraError(InputError):
    """A registered name whose optional packages are not installed."""


class RunFolderError(WideSpectrumError):
    """A run folder that cannot be used as it stands."""


class ModelError(WideSpectrumError):
    """A generator, reward model or judge that failed on a batch; nothing of the batch is stored."""


class GeneratorStoppedError(ModelError):
    """A generator that will make nothing more in this run, for a reason that has to do with no prompt."""


class BudgetSpentError(WideSpectrumError):
    """No further call to a paid API fits into the budget; nothing was sent."""


class HubError(WideSpectrumError):
    """The Hub, or the way to it, failed in a manner that passes: running the same command again is enough."""
