"""The chart, the compose files and the manifests start what the command line has, and nothing
secret is in sight."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from multimodal_gen.entrypoints.cli.main import app

ROOT = Path(__file__).parents[2]
HELM = ROOT / "deploy" / "helm"
RENDERED = HELM / "example.yaml"
COMPOSE = sorted((ROOT / "docker").glob("compose*.yaml"))
OURS = "multimodal-gen:"
STAND_INS = {"$(LWS_WORKER_INDEX)": "1", "$(LWS_LEADER_ADDRESS)": "leader"}


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def pods(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Pod templates of a manifest."""
    spec = document.get("spec", {})
    if "template" in spec:
        yield spec["template"]
    for name in ("leaderTemplate", "workerTemplate"):
        if "leaderWorkerTemplate" in spec:
            yield spec["leaderWorkerTemplate"][name]


def rendered_pods() -> list[dict[str, Any]]:
    return [pod for document in documents(RENDERED) for pod in pods(document)]


def commands() -> Iterator[list[str]]:
    """Arguments of every container that runs multimodal-gen."""
    for path in (RENDERED, ROOT / "docker" / "kubernetes.yaml"):
        for document in documents(path):
            for pod in pods(document):
                yield from (container["args"] for container in pod["spec"]["containers"])
    for path in COMPOSE:
        for service in yaml.safe_load(path.read_text())["services"].values():
            if service["image"].startswith(OURS) and "command" in service:
                yield service["command"]


def filled(word: str) -> str:
    for variable, value in STAND_INS.items():
        word = word.replace(variable, value)
    return word


def test_every_option_of_chart_compose_and_manifests_exists() -> None:
    found = list(commands())
    assert {words[0] for words in found} == {"serve", "engine"}
    for words in found:
        app.parse_args([*map(filled, words)], exit_on_error=False, print_error=False)


def test_the_rendered_example_is_that_of_the_chart() -> None:
    """Otherwise run deploy/helm/render.sh."""
    files = [path for path in (HELM / "multimodal-gen").rglob("*") if path.is_file()]
    paths = {path.relative_to(HELM).as_posix(): path for path in files}
    paths["example.values.yaml"] = HELM / "example.values.yaml"
    digest = hashlib.sha256(b"".join(paths[name].read_bytes() for name in sorted(paths)))
    assert digest.hexdigest() in RENDERED.read_text().partition("\n")[0]


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
def test_helm_renders_the_example() -> None:
    chart = HELM / "multimodal-gen"
    values = HELM / "example.values.yaml"
    subprocess.run(["helm", "lint", chart, "--values", values], check=True)
    made = subprocess.run(
        ["helm", "template", "multimodal-gen", chart, "--values", values],
        check=True,
        capture_output=True,
        text=True,
    )
    assert made.stdout == RENDERED.read_text().partition("\n")[2]


def test_the_front_knows_each_engine_that_there_may_be() -> None:
    front = next(words for words in commands() if "--engine" in words)
    addresses = [after for word, after in pairwise(front) if word == "--engine"]
    assert addresses == [
        *(f"tcp://multimodal-gen-flux-{i}.multimodal-gen-flux:30100" for i in range(4)),
        "tcp://multimodal-gen-wan-0.multimodal-gen-wan:30100",
    ]
    services = {d["metadata"]["name"] for d in documents(RENDERED) if d["kind"] == "Service"}
    assert {"multimodal-gen-flux", "multimodal-gen-wan"} <= services


def test_pods_have_no_more_rights_than_they_need() -> None:
    for pod in rendered_pods():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*spec["initContainers"], *spec["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}


def test_secrets_reach_containers_as_files_or_references_only() -> None:
    for pod in rendered_pods():
        for container in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
            for variable in container.get("env", ()):
                is_secret = variable["name"] in ("HF_TOKEN", "MULTIMODAL_GEN_LEDGER")
                assert is_secret == ("secretKeyRef" in variable.get("valueFrom", ()))
    words = " ".join(word for command in commands() for word in command)
    assert "--api-key " not in words
    assert "postgres" not in words


def test_only_engines_hold_the_secret_of_the_side_that_listens() -> None:
    for pod in rendered_pods():
        component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
        (secret,) = (v["secret"] for v in pod["spec"]["volumes"] if v["name"] == "secret")
        wanted = "engine.key" if component == "engine" else "engine.key.client"
        assert [item["key"] for item in secret["items"]] == [wanted]


def test_every_mount_has_its_volume_and_every_selector_its_pods() -> None:
    claims = {"cache", "data"}
    for pod in rendered_pods():
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]} | claims
        for container in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    labels = [pod["metadata"]["labels"].items() for pod in rendered_pods()]
    for document in documents(RENDERED):
        if document["kind"] == "Service":
            selector = document["spec"]["selector"].items()
            assert any(selector <= each for each in labels)


def test_engines_are_scaled_by_the_work_that_waits_at_servers_and_in_the_ledger() -> None:
    (scaled,) = (d for d in documents(RENDERED) if d["kind"] == "ScaledObject")
    seconds, jobs = (trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"])
    assert "multimodal_gen_predicted_backlog_seconds" in seconds
    assert "multimodal_gen_jobs_not_taken" in jobs
    assert scaled["spec"]["minReplicaCount"] == 0
    target = scaled["spec"]["scaleTargetRef"]
    (workload,) = (
        d
        for d in documents(RENDERED)
        if d["kind"] == target["kind"] and d["metadata"]["name"] == target["name"]
    )
    assert "replicas" not in workload["spec"], "they would be set back at each upgrade"


def test_compose_keeps_secrets_out_of_the_file() -> None:
    for path in COMPOSE:
        for service in yaml.safe_load(path.read_text())["services"].values():
            for name, value in service.get("environment", {}).items():
                if name.endswith(("KEY", "PASSWORD", "LEDGER", "TOKEN")):
                    assert "${" in value, name
