"""Two of the chart, under other names, in one umbrella chart."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster.namespace import OUR_IMAGE, Namespace
from tools.generate.chart import CHART


def test_two_aliases_in_one_release_keep_apart(namespace: Namespace, tmp_path: Path) -> None:
    umbrella = tmp_path / "umbrella"
    umbrella.mkdir()
    dependency = {"name": "macp-auth", "version": ">=0.0.0-0", "repository": f"file://{CHART}"}
    chart = {
        "apiVersion": "v2",
        "name": "umbrella",
        "version": "1.0.0",
        "dependencies": [{**dependency, "alias": alias} for alias in ("blue", "green")],
    }
    (umbrella / "Chart.yaml").write_text(yaml.safe_dump(chart))
    namespace.helm("dependency", "build", umbrella)
    values = {"image": OUR_IMAGE}

    namespace.helm(
        "install", "one", umbrella, "--wait", "--timeout=120s", values={"blue": values, "green": values}
    )
    namespace.helm("test", "one", "--logs")

    for alias in ("blue", "green"):
        slices = namespace.all("endpointslices", f"kubernetes.io/service-name=one-{alias}")
        assert sum(len(each["endpoints"] or []) for each in slices) == 1, alias
