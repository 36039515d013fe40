"""Before any test imports transformers: a torchvision that was built for CUDA must not stand in its way."""

from widespectrum._compat import ensure_torchvision

ensure_torchvision()
