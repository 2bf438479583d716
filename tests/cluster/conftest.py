"""Without Ray there is nothing to test here. Beside others it is ``tests/test_on_ray.py`` that runs these tests."""

from importlib.util import find_spec

from tests.cluster.ranks import BESIDE_OTHERS

collect_ignore_glob = [] if find_spec("ray") and not BESIDE_OTHERS else ["test_*.py"]
