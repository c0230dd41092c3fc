"""The image and the Compose stack, as files."""

import re

import yaml

from report import require
from tools import ROOT, Tools, run

COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = ROOT / "deploy/Dockerfile"
EXAMPLE = ROOT / ".env.example"
PROGRAMS = ["ingress", "worker", "smsctl"]


def compose_keeps_to_its_schema(tools: Tools):
    """No unknown key, no wrong type."""
    run([tools.program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)])


def compose_is_understood(tools: Tools):
    """`docker compose` itself resolves the file with the example's values."""
    plugins = tools.unpacked("docker-plugins-trixie", ["docker-compose", "docker-buildx"], "trixie")
    compose = plugins / "usr/libexec/docker/cli-plugins/docker-compose"
    run([str(compose), "--file", str(COMPOSE), "--env-file", str(EXAMPLE), "--profile", "tools", "config", "--quiet"])


def the_example_has_every_variable(_tools: Tools):
    """Whoever copies .env.example has all that the stack asks for, and nothing that it does not."""
    asked = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    optional = set(re.findall(r"\$\{(\w+):-", COMPOSE.read_text())) | {"ALERT_WEBHOOK"}
    given = set(re.findall(r"^(\w+)=", EXAMPLE.read_text(), re.MULTILINE))
    faults = [f".env.example lacks {name}" for name in sorted(asked - given)]
    require(faults + [f"nothing asks for {name} of .env.example" for name in sorted(given - asked - optional)])


def compose_is_hardened(_tools: Tools):
    """The programs have no rights they do not need; nothing is published but on loopback."""
    faults, services = [], yaml.safe_load(COMPOSE.read_text())["services"]
    for name in PROGRAMS:
        service = services[name]
        if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
            faults.append(f"{name}: its root is writable or it has capabilities")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            faults.append(f"{name}: it may gain privileges")
    for name, service in services.items():
        faults += [f"{name}: {port} is not on loopback" for port in service.get("ports", []) if not port.startswith("127.0.0.1:")]
        image = service["image"]
        if not image.startswith("${IMAGE") and (":" not in image or image.endswith(":latest")):
            faults.append(f"{name}: {image} names no version")
        if "container_name" in service:
            faults.append(f"{name}: a fixed name keeps it from being scaled")
    redis = services["redis"]
    words = " ".join(redis["command"])
    for option in ("--appendonly yes", "--maxmemory-policy noeviction"):
        if option not in words:
            faults.append(f"redis runs without {option}")
    if "ports" in redis:
        faults.append("redis is published")
    require(faults)


def dockerfile_is_sound(tools: Tools):
    """hadolint finds nothing; the image runs as nobody in particular and without a shell."""
    run([tools.program("hadolint"), str(DOCKERFILE)])
    text = DOCKERFILE.read_text()
    last = text[text.rindex("\nFROM "):]
    faults = []
    if not last.startswith("\nFROM scratch"):
        faults.append("the image is not made from scratch")
    if not re.search(r"^USER \d+:\d+$", last, re.MULTILINE):
        faults.append("USER is not a number, so that nobody can verify that it is not root")
    for word in ("HEALTHCHECK", "STOPSIGNAL SIGTERM", "org.opencontainers.image.version"):
        if word not in last:
            faults.append(f"no {word}")
    if "--locked" not in text:
        faults.append("cargo builds without --locked")
    require(faults)


def scripts_are_sound(tools: Tools):
    """shellcheck finds nothing."""
    scripts = [ROOT / "test", ROOT / ".ci/run", ROOT / "deploy/check", *(ROOT / "deploy").rglob("*.sh")]
    run([tools.program("shellcheck"), *map(str, scripts)])


CHECKS = [
    ("the Dockerfile is sound", dockerfile_is_sound),
    ("docker-compose.yml keeps to its schema", compose_keeps_to_its_schema),
    ("docker-compose.yml is understood by docker compose", compose_is_understood),
    ("docker-compose.yml is hardened", compose_is_hardened),
    (".env.example has every variable", the_example_has_every_variable),
    ("shell scripts are sound", scripts_are_sound),
]
