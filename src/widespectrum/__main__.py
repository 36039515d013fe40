"""`python -m widespectrum` is the command `widespectrum`."""

from .cli import main

main()
