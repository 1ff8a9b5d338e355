"""The list of metrics that rules and dashboards are held against is what the code serves."""

from prometheus_client import Counter, Gauge, Histogram

from tests.deploy.contract import COUNTERS, GAUGES, HISTOGRAMS
from worker import metrics, queue_gauges


def test_the_contract_is_what_the_code_serves() -> None:
    """Each metric by name and type; those of the process itself are the client library's."""
    families = [
        family
        for value in vars(metrics).values()
        if isinstance(value, Counter | Gauge | Histogram)
        for family in value.describe()
    ]
    served = {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}
    served |= {name: "gauge" for name, _, _ in queue_gauges._FAMILIES.values()}
    kinds = (("counter", COUNTERS), ("histogram", HISTOGRAMS), ("gauge", GAUGES))
    assert served == {name: kind for kind, names in kinds for name in names if not name.startswith("process_")}
