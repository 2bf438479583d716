import numpy as np
import pytest

from fettle.intervals import students_interval


def test_the_interval_is_students():
    assert students_interval([1.0, 2.0, 3.0]) == pytest.approx(
        (2.0, 2.0 - 4.303 / np.sqrt(3), 2.0 + 4.303 / np.sqrt(3))
    )
