"""Kubernetes: every overlay as it is applied, held to the schemas and to what is promised of it."""

import functools
import json

import yaml

from report import Failed, require
from tools import ROOT, Tools, run

FOLDER = ROOT / "deploy/kubernetes"
OVERLAYS = ["dev", "prod", "keda"]
# The oldest version of Kubernetes the files are for (preStop.sleep), and a new one.
VERSIONS = ["1.30", "1.33", "1.37"]
RULES = FOLDER / "base/rules.yaml"
# What a stopping worker may take (worker.drain); grace periods exceed it.
DRAIN = 25


@functools.cache
def rendered(tools: Tools, overlay: str) -> list[dict]:
    """The objects of an overlay."""
    text = run([tools.program("kubectl"), "kustomize", str(FOLDER / "overlays" / overlay)])
    (tools.cache / f"{overlay}.yaml").write_text(text)
    return list(yaml.safe_load_all(text))


def of_kind(tools: Tools, overlay: str, kind: str) -> list[dict]:
    """The objects of one kind."""
    return [found for found in rendered(tools, overlay) if found["kind"] == kind]


def objects_keep_to_their_schemas(tools: Tools):
    """Strictly, in every version: no unknown field, no wrong type."""
    validate = tools.program("kubernetes-validate")
    count = 0
    for overlay in OVERLAYS:
        count += len(rendered(tools, overlay))
        for version in VERSIONS:
            run([validate, "--strict", "--quiet", "--no-warn", "-k", version, str(tools.cache / f"{overlay}.yaml")])
    return f"{count} objects, Kubernetes {', '.join(VERSIONS)}"


def lost(given, kept, path=""):
    """Fields that a strict model did not take over."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(kept, dict) or key not in kept:
                yield f"{path}.{key}"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list):
        for at, value in enumerate(given):
            yield from lost(value, kept[at] if isinstance(kept, list) and at < len(kept) else None, f"{path}[{at}]")


def custom_objects_keep_to_their_schemas(tools: Tools):
    """KEDA's and the Prometheus operator's own kinds, of which the schemas above know nothing."""
    from cloudcoil.models.keda import v1alpha1 as keda
    from cloudcoil.models.prometheus_operator import v1 as operator

    kinds = {
        "ScaledObject": keda.ScaledObject,
        "TriggerAuthentication": keda.TriggerAuthentication,
        "PodMonitor": operator.PodMonitor,
        "PrometheusRule": operator.PrometheusRule,
    }
    faults, count = [], 0
    for overlay in OVERLAYS:
        for found in rendered(tools, overlay):
            model = kinds.get(found["kind"])
            if not model:
                continue
            count += 1
            name = f"{overlay}: {found['kind']} {found['metadata']['name']}"
            try:
                kept = json.loads(model.model_validate(found).model_dump_json(by_alias=True, exclude_unset=True))
            except ValueError as error:
                faults.append(f"{name}: {error}")
                continue
            faults += [f"{name}: unknown field {field}" for field in lost(found, kept)]
    require(faults)
    return f"{count} objects"


def pods(tools: Tools, overlay: str):
    """Every pod that an overlay makes: its owner's name and its spec."""
    for found in rendered(tools, overlay):
        if found["kind"] in ("Deployment", "StatefulSet", "Job"):
            yield found["metadata"]["name"], found["spec"]["template"]


def pods_are_restricted(tools: Tools):
    """What Pod Security "restricted" demands (v1.33), and a root that cannot be written."""
    allowed = {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim", "downwardAPI", "csi", "ephemeral"}
    faults = []
    for overlay in OVERLAYS:
        for name, template in pods(tools, overlay):
            spec, where = template["spec"], f"{overlay}: {name}"
            of_pod = spec.get("securityContext", {})
            for switch in ("hostNetwork", "hostPID", "hostIPC"):
                if spec.get(switch):
                    faults.append(f"{where}: {switch}")
            for volume in spec.get("volumes", []):
                faults += [f"{where}: volume of type {kind}" for kind in volume.keys() - {"name"} - allowed]
            for container in spec["containers"] + spec.get("initContainers", []):
                context = of_pod | container.get("securityContext", {})
                if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
                    faults.append(f"{where}: may run as root")
                if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
                    faults.append(f"{where}: may gain privileges")
                if context.get("capabilities") != {"drop": ["ALL"]}:
                    faults.append(f"{where}: keeps capabilities")
                if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
                    faults.append(f"{where}: no seccomp profile")
                if not context.get("readOnlyRootFilesystem"):
                    faults.append(f"{where}: its root can be written")
                if any("hostPort" in port for port in container.get("ports", [])):
                    faults.append(f"{where}: hostPort")
                if not container.get("resources", {}).get("limits", {}).get("memory"):
                    faults.append(f"{where}: no limit of memory")
            if spec.get("automountServiceAccountToken") is not False:
                faults.append(f"{where}: has a token of the cluster")
        for namespace in of_kind(tools, overlay, "Namespace"):
            if namespace["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
                faults.append(f"{overlay}: the namespace does not enforce \"restricted\"")
    require(faults)


def pods_live_and_die_well(tools: Tools):
    """Probes, grace periods, budgets, and nobody who fixes a number that an autoscaler decides."""
    faults = []
    for overlay in OVERLAYS:
        scaled = {found["spec"]["scaleTargetRef"]["name"]: found for kind in ("HorizontalPodAutoscaler", "ScaledObject")
                  for found in of_kind(tools, overlay, kind)}
        budgets = {found["metadata"]["name"]: found["spec"] for found in of_kind(tools, overlay, "PodDisruptionBudget")}
        for deployment in of_kind(tools, overlay, "Deployment"):
            name, spec = deployment["metadata"]["name"], deployment["spec"]
            pod, where = spec["template"]["spec"], f"{overlay}: {name}"
            container = pod["containers"][0]
            if container["livenessProbe"]["httpGet"]["path"] != "/healthz":
                faults.append(f"{where}: its liveness depends on more than the process")
            if container["readinessProbe"]["httpGet"]["path"] != "/readyz":
                faults.append(f"{where}: its readiness is not readiness")
            before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if pod["terminationGracePeriodSeconds"] < before + DRAIN + 5:
                faults.append(f"{where}: killed before its drain is over")
            if "replicas" in spec or name not in scaled:
                faults.append(f"{where}: its number is not an autoscaler's")
            if budgets.get(name, {}).get("maxUnavailable") != 1:
                faults.append(f"{where}: no budget of one unavailable pod")
            if len(pod.get("topologySpreadConstraints", [])) < 2:
                faults.append(f"{where}: not spread over zones and nodes")
    require(faults)


def references_lead_somewhere(tools: Tools):
    """Names of config maps, accounts and ports; secrets are named and never shipped."""
    faults = []
    for overlay in OVERLAYS:
        maps = {found["metadata"]["name"] for found in of_kind(tools, overlay, "ConfigMap")}
        accounts = {found["metadata"]["name"] for found in of_kind(tools, overlay, "ServiceAccount")}
        if of_kind(tools, overlay, "Secret"):
            faults.append(f"{overlay}: ships a Secret")
        labels = [template["metadata"]["labels"] for _, template in pods(tools, overlay)]
        for name, template in pods(tools, overlay):
            spec = template["spec"]
            named = [volume["configMap"]["name"] for volume in spec.get("volumes", []) if "configMap" in volume]
            for container in spec["containers"]:
                sources = [variable.get("valueFrom", {}) for variable in container.get("env", [])]
                named += [source["configMapKeyRef"]["name"] for source in sources if "configMapKeyRef" in source]
            faults += [f"{overlay}: {name}: no ConfigMap {one}" for one in named if one not in maps]
            account = spec.get("serviceAccountName")
            if account and account not in accounts:
                faults.append(f"{overlay}: {name}: no ServiceAccount {account}")
        for kind in ("Service", "NetworkPolicy", "PodMonitor", "PodDisruptionBudget"):
            for found in of_kind(tools, overlay, kind):
                selector = found["spec"].get("podSelector", found["spec"].get("selector")) or {}
                wanted = selector if kind == "Service" else selector.get("matchLabels", {})
                here = found["metadata"].get("namespace", "").startswith("sms-broadcaster")
                if here and not any(wanted.items() <= have.items() for have in labels):
                    faults.append(f"{overlay}: {kind} {found['metadata']['name']} selects no pod")
    require(faults)


def network_is_closed(tools: Tools):
    """Nothing by default; then what is needed, KEDA's way to Redis included."""
    faults = []
    for overlay in OVERLAYS:
        policies = {found["metadata"]["name"]: found["spec"] for found in of_kind(tools, overlay, "NetworkPolicy")}
        closed = policies.get("default-deny", {})
        if closed.get("podSelector") != {} or set(closed.get("policyTypes", [])) != {"Ingress", "Egress"}:
            faults.append(f"{overlay}: no default deny")
        for name in ("dns", "webhooks", "queue", "providers", "monitoring"):
            if name not in policies:
                faults.append(f"{overlay}: no policy {name}")
        if of_kind(tools, overlay, "ScaledObject"):
            sources = [source for rule in policies.get("redis-clients", {}).get("ingress", []) for source in rule["from"]]
            names = [source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for source in sources]
            if "keda" not in names:
                faults.append(f"{overlay}: KEDA cannot reach Redis")
    require(faults)


def streams_are_those_of_the_program(tools: Tools):
    """The scaler asks for the streams that the queue writes."""
    source = (ROOT / "src/queue/redis/scripts.rs").read_text() + (ROOT / "src/queue/scripts/ground.lua").read_text()
    asked = {trigger["metadata"]["stream"] for found in of_kind(tools, "keda", "ScaledObject") for trigger in found["spec"]["triggers"]}
    if asked != {"sq1:{0}:in", "sq1:{0}:rdy:sms", "sq1:{0}:rdy:slack"} or "sq1:" not in source or "'rdy:'" not in source:
        raise Failed(f"the streams of the program are not {sorted(asked)}")


def generated_rules() -> str:
    """The PrometheusRule, from the same files that Prometheus reads."""
    groups = []
    for name in ("recording", "alerts"):
        groups += yaml.safe_load((ROOT / f"deploy/prometheus/rules/{name}.yml").read_text())["groups"]
    made = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "sms-broadcaster"},
        "spec": {"groups": groups},
    }
    head = "# Generated from deploy/prometheus/rules by `deploy/check --generate`: edit those.\n"
    return head + yaml.safe_dump(made, sort_keys=False, width=120, allow_unicode=True)


def the_rules_are_the_same(_tools: Tools):
    """rules.yaml is what the rules' files make."""
    if not RULES.exists() or RULES.read_text() != generated_rules():
        raise Failed("deploy/kubernetes/base/rules.yaml is not what deploy/prometheus/rules make: deploy/check --generate")


def generate() -> None:
    """Writes what is generated."""
    RULES.write_text(generated_rules())


CHECKS = [
    ("Kubernetes objects keep to their schemas", objects_keep_to_their_schemas),
    ("custom objects keep to their schemas", custom_objects_keep_to_their_schemas),
    ("pods are restricted", pods_are_restricted),
    ("pods live and die well", pods_live_and_die_well),
    ("references lead somewhere", references_lead_somewhere),
    ("the network is closed", network_is_closed),
    ("the scaler reads the streams of the program", streams_are_those_of_the_program),
    ("Kubernetes has the same rules", the_rules_are_the_same),
]
