"""How work is spread: `local` runs batches in this process."""

from .local import Failure

__all__ = ["Failure"]
