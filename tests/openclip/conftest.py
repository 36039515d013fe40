"""These tests run in an environment of their own, which has open_clip and torchvision: `make test-openclip`."""

from importlib.util import find_spec

from widespectrum._compat import ensure_torchvision

collect_ignore_glob = [] if find_spec("torchvision") or find_spec("open_clip") else ["test_*.py"]
ensure_torchvision()
