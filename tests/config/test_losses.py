"""Settings of losses that contradict themselves are refused with what to change."""

import pytest
from pydantic import ValidationError

from fettle.config import CISPO, DPO


@pytest.mark.parametrize("smoothing", [0.5, 0.7, -0.1])
def test_smoothing_that_would_turn_labels_round_is_refused(smoothing):
    with pytest.raises(ValidationError, match=r"label_smoothing\n  Input should be (less than 0\.5|greater than)"):
        DPO(label_smoothing=smoothing)


@pytest.mark.parametrize("variant", ["ipo", "hinge"])
def test_smoothing_needs_a_sigmoid(variant):
    with pytest.raises(ValidationError, match=f"no use to the variant {variant}: use sigmoid or robust"):
        DPO(variant=variant, label_smoothing=0.1)


def test_bounds_of_a_weight_must_leave_room():
    with pytest.raises(ValidationError, match="ratio_low is 5 and ratio_high 4: lower ratio_low"):
        CISPO(ratio_low=5.0)
    assert CISPO(ratio_low=4.0).ratio_high == 4.0
