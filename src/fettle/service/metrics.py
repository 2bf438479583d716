"""Numbers for Prometheus, in a registry of their own."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fettle.broker import Promise
from fettle.errors import FettleError

REQUEST_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
OPERATION_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
MOST_TENANTS = 1000
"""That are told of by name; of whoever was computed for longest ago nothing more is told, until there is something."""


class Metrics:
    """What an operator watches. ``counts`` is asked whenever somebody looks."""

    def __init__(self, counts: Callable[[], Mapping[str, float]]) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Counts(counts))
        self.requests = Histogram(
            "fettle_request_seconds",
            "Time from a request's arrival to the end of its answer.",
            ("method", "route", "status"),
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self.under_way = Gauge("fettle_requests_under_way", "Requests that are being answered.", registry=self.registry)
        self._operations = Histogram(
            "fettle_operation_seconds",
            "Computing that an operation or a draw took.",
            ("kind", "outcome"),
            buckets=OPERATION_SECONDS,
            registry=self.registry,
        )
        self._tokens = Counter("fettle_tokens", "Tokens computed or drawn.", ("kind", "tenant"), registry=self.registry)
        self._compute = Counter(
            "fettle_compute_seconds", "Measured computing.", ("kind", "tenant"), registry=self.registry
        )
        self._kinds: OrderedDict[str, set[str]] = OrderedDict()
        """Of work that was counted, by tenant."""

    def worked(self, promise: Promise) -> None:
        """Count what a promise came to."""
        answer = promise.answer
        outcome = answer.code if isinstance(answer, FettleError) else "done"
        self._operations.labels(promise.kind, outcome).observe(promise.seconds)
        if promise.seconds > 0:
            self.computed(promise.tenant, promise.kind, seconds=promise.seconds, tokens=promise.tokens)

    def computed(self, tenant: str, kind: str, *, seconds: float, tokens: int) -> None:
        """Count what was computed for a tenant."""
        self._tokens.labels(kind, tenant).inc(tokens)
        self._compute.labels(kind, tenant).inc(seconds)
        self._kinds.setdefault(tenant, set()).add(kind)
        self._kinds.move_to_end(tenant)
        if len(self._kinds) > MOST_TENANTS:
            gone, kinds = self._kinds.popitem(last=False)
            for each in kinds:
                self._tokens.remove(each, gone)
                self._compute.remove(each, gone)

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self.registry)


class _Counts(Collector):
    """How the broker stands at this moment."""

    def __init__(self, counts: Callable[[], Mapping[str, float]]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: what there is is known when somebody looks."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One gauge for each count."""
        for name, value in self._counts().items():
            words = name.replace("/", " ").replace("_", " ")
            yield GaugeMetricFamily(f"fettle_{name.replace('/', '_')}", f"The broker's {words}.", value)
