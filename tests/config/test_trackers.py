import pytest
from pydantic import ValidationError

from fettle.config import Prometheus


@pytest.mark.parametrize("address", ["127.0.0.1:99999", "127.0.0.1:0", "9464", "http://127.0.0.1:9464"])
def test_a_page_needs_an_address_that_can_be_listened_on(address):
    with pytest.raises(ValidationError, match="write a host and a port from 1 to 65535"):
        Prometheus(address=address)
