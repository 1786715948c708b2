"""How MLflow's page of an experiment shows our runs: a saved view, in the form that MLflow's own pages save one in.

MLflow keeps such a view as a tag of the experiment and offers it in its list of views; a link opens it at once. It knows no
default one, and a browser that has never been there shows an experiment as one of agents: so the link says that as well.
"""

from __future__ import annotations

import base64
import json
import zlib
from urllib.parse import urlencode

KEY = "meltrepro-1"
"""Of the view; one that looks otherwise gets another key, since the reader may have changed this one."""
TAG = f"mlflow.sharedViewState.{KEY}"
_NAME = "meltrepro: results"
_MADE_MS = 1_790_000_000_000
"""A view needs a time, and the same view shall be the same bytes whenever it is made."""
_COLUMNS = (
    *(f"params.`{name}`" for name in ("model", "quantization", "framework", "release", "target", "workload")),
    *(f"metrics.`{name}`" for name in ("generation_tps", "prefill_tps", "ttft_ms", "peak_memory_bytes")),
    *("metrics.`energy_per_token_j`", "tags.`meltrepro.state`", "tags.`meltrepro.campaign`"),
)
_BARS = ("generation_tps", "prefill_tps", "ttft_ms", "itl_p50_ms", "peak_memory_bytes", "energy_per_token_j", "load_s")
_EVERY_TOKEN = "inter_token_ms/r000"
_RESULTS, _TOKENS = "Results", "Every token"
_FOLDED = ("Model metrics", "inter_token_ms", "uncertainty", "values")
"""MLflow adds a chart for each metric that has none, in sections named by what stands before the slash."""


def value() -> str:
    """The tag's value."""
    state = json.dumps(_state(), separators=(",", ":")).encode()
    packed = f"deflate;{base64.b64encode(zlib.compress(state, 9)).decode()}"  # older servers take 5000 characters
    return json.dumps({"name": _NAME, "createdAt": _MADE_MS, "updatedAt": _MADE_MS, "state": packed})


def link(server: str, experiment_id: str, *, charts: bool = True) -> str:
    """Address of the experiment's page in this view; of its table where no charts are wanted."""
    query = {
        "workflowType": "machine_learning",
        "compareRunsMode": "CHART" if charts else "TABLE",
        "viewStateShareKey": KEY,
    }
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{urlencode(query)}"


def _state() -> dict[str, object]:
    return {
        "searchFilter": 'tags.`meltrepro.kind` = "cell"',
        "orderByKey": "tags.`meltrepro.campaign`",  # newest first; by the time itself MLflow would fold cells into campaigns
        "orderByAsc": False,
        "selectedColumns": list(_COLUMNS),
        "runsHiddenMode": "FIRST_20_RUNS",
        "hideEmptyCharts": True,
        "isAccordionReordered": True,
        "compareRunSections": [
            *(_section(name, shown=True) for name in (_RESULTS, _TOKENS)),
            *(_section(name, shown=False) for name in _FOLDED),
        ],
        "compareRunCharts": [
            *(_chart("BAR", _RESULTS, metric) for metric in _BARS),
            _chart("LINE", _TOKENS, _EVERY_TOKEN)
            | {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "lineSmoothness": 0}
            | {"range": {}, "yAxisKey": "metric", "yAxisExpressions": [], "selectedXAxisMetricKey": ""}
            | {"selectedMetricKeys": [_EVERY_TOKEN], "useGlobalXaxisKey": False, "useGlobalLineSmoothing": False},
        ],
    }


def _section(name: str, *, shown: bool) -> dict[str, object]:
    return {
        "uuid": f"meltrepro-{name}",
        "name": name,
        "display": shown,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
    }


def _chart(kind: str, section: str, metric: str) -> dict[str, object]:
    return {
        "uuid": f"meltrepro-{metric}",
        "type": kind,
        "metricKey": metric,
        "metricSectionId": f"meltrepro-{section}",
        "runsCountToCompare": 20,
        "deleted": False,
        "isGenerated": False,
    }
