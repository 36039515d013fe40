"""Photographs of AVA that break with conventional beauty: votes, selection, captions and clean counterparts.

Nothing of AVA is in this package: its files, photographs and embeddings come from the user.
"""

from __future__ import annotations

__all__: list[str] = []
