"""How work is spread: `local` in this process, `threads` for what waits on an API, `processes` over several devices.

`collecting` stores what they bring.
"""

from widespectrum.protocols import Failure

__all__ = ["Failure"]
