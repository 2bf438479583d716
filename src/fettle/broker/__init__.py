"""An engine over any backend: orders, batches, and the place where the journal will stand."""

from fettle.broker.engine import Broker, BrokerPolicy, BrokerSampler
from fettle.broker.oplog import Operation, OpLog, digest

__all__ = ["Broker", "BrokerPolicy", "BrokerSampler", "OpLog", "Operation", "digest"]
