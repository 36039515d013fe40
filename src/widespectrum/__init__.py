"""widespectrum: does the picture still show what was asked for when that is not conventionally beautiful?"""

__version__ = "0.1.0"
