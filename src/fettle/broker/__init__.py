"""An engine over any backend: orders, batches, and the journal of what was taken in."""

from fettle.broker.engine import Broker
from fettle.broker.policies import BrokerPolicy, PolicyInfo
from fettle.broker.promises import Promise, operation_id
from fettle.broker.samplers import BrokerSampler

__all__ = ["Broker", "BrokerPolicy", "BrokerSampler", "PolicyInfo", "Promise", "operation_id"]
