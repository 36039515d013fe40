"""How work is spread: `local` runs batches in this process."""

from widespectrum.protocols import Failure

__all__ = ["Failure"]
