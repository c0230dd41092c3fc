"""The stack as its user starts it: built by an engine, brought up by Compose, with the networks and names it has.

The images that the stack takes from elsewhere are stood in for by Debian's packages under the same names; Grafana is in
none, and is left out. Images are built by an engine on the machine's network. Then a second one, on the same data, is
started inside a network namespace of its own, so that the stack's networks are seen by nobody else, and everything
that speaks to them runs in there too.
"""

import json
import os
import pathlib
import subprocess
import sys

import yaml

import standin
from engine import Engine
from report import Failed, Skipped
from stack import configuration, get, play, values, wait_for
from tools import ROOT, Tools

IMAGE = "sms-broadcaster:local"
COMPOSE = ROOT / "docker-compose.yml"
INSIDE = "SMS_BROADCASTER_STACK_INSIDE"
# In a namespace without a way out this leads to the namespace itself.
GATEWAY = "stand-in"


class Containers:
    """The stack in containers."""

    def __init__(self, engine: Engine, folder: pathlib.Path, stand_in: standin.StandIn):
        self.engine, self.folder = engine, folder
        self.ingress, self.prometheus = "http://127.0.0.1:8080", "http://127.0.0.1:9090"
        folder.chmod(0o755)
        (folder / "config").mkdir()
        (folder / "config/config.toml").write_text(configuration(f"http://{GATEWAY}:{stand_in.port}"))
        (folder / "config/subscribers.toml").write_text(stand_in.subscribers(GATEWAY))
        env = (ROOT / ".env.example").read_text().splitlines()
        ours = {"TWILIO_SID": standin.ACCOUNT, "TWILIO_AUTH_TOKEN": standin.TOKEN, "MFA_FROM_PHONE": standin.OURS,
                "PUBLIC_URL": standin.PUBLIC_URL, "CONFIG_DIR": str(folder / "config"),
                "ALERT_WEBHOOK": f"http://{GATEWAY}:{stand_in.port}/alerts"}
        env = [line for line in env if line.split("=")[0] not in ours] + [f"{name}={value}" for name, value in ours.items()]
        (folder / "env").write_text("\n".join(env) + "\n")
        # What differs from the shipped file: the way to the stand-ins, and haste in Prometheus.
        scraping = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
        for interval in ("scrape_interval: 15s", "evaluation_interval: 15s", "refresh_interval: 10s"):
            scraping = scraping.replace(interval, interval.split(":")[0] + ": 1s")
        (folder / "prometheus.yml").write_text(scraping)
        rules = folder / "rules"
        rules.mkdir()
        for file in (ROOT / "deploy/prometheus/rules").glob("*.yml"):
            (rules / file.name).write_text(file.read_text().replace("interval: 30s", "interval: 1s"))
        extra = {"extra_hosts": [f"{GATEWAY}:host-gateway"]}
        mounts = [f"{folder}/prometheus.yml:/etc/prometheus/prometheus.yml:ro", f"{rules}:/etc/prometheus/rules:ro"]
        # The shipped health check asks by a word that the older promtool of Debian's package does not know.
        healthy = {"test": ["CMD", "promtool", "query", "instant", "http://localhost:9090", "1"]}
        prometheus = {"volumes": mounts, "healthcheck": healthy}
        override = {"services": {"worker": extra, "alertmanager": extra, "prometheus": prometheus}}
        (folder / "override.yml").write_text(yaml.safe_dump(override))

    def compose(self, *words: str) -> str:
        """Runs docker compose on the shipped file."""
        files = ["--file", str(COMPOSE), "--file", str(self.folder / "override.yml"), "--env-file", str(self.folder / "env")]
        return self.engine.docker("compose", "--project-directory", str(ROOT), *files, *words)

    def up(self) -> None:
        self.compose("up", "--detach", "--wait", "--no-build", "redis", "ingress", "worker", "prometheus", "alertmanager")
        wait_for("the programs are scraped", lambda: len(values(self.prometheus, 'up{job=~"sms-.*"} == 1')) == 3)
        if not get("http://127.0.0.1:9093/-/ready"):
            raise Failed("Alertmanager does not answer where it is published")

    def workers(self) -> list[str]:
        """The running workers' containers."""
        return self.compose("ps", "--quiet", "--status", "running", "worker").split()

    def kill_a_worker(self) -> None:
        self.engine.docker("kill", self.workers()[0])

    def drain_a_worker(self) -> int:
        worker = self.workers()[0]
        self.engine.docker("stop", "--time", "35", worker)
        return json.loads(self.engine.docker("inspect", worker))[0]["State"]["ExitCode"]

    def add_a_worker(self) -> None:
        self.compose("up", "--detach", "--wait", "--no-build", "--no-recreate", "--scale", "worker=3", "worker")

    def kill_redis(self) -> None:
        self.compose("kill", "redis")

    def start_redis(self) -> None:
        self.compose("start", "redis")

    def smsctl(self, *words: str) -> str:
        return self.compose("run", "--rm", "--no-TTY", "--no-deps", "smsctl", *words)

    def stop_programs(self) -> list[int]:
        ids = self.compose("ps", "--quiet", "--status", "running", "ingress", "worker").split()
        self.compose("stop", "ingress", "worker")
        return [json.loads(self.engine.docker("inspect", one))[0]["State"]["ExitCode"] for one in ids]

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "5")

    def last_words(self) -> str:
        """The ends of the logs."""
        return self.compose("logs", "--no-color", "--tail", "12") + self.compose("ps", "--all")


def build(tools: Tools, folder: pathlib.Path) -> None:
    """Every image of the stack, in an engine that sees the machine's network."""
    engine = Engine(tools, folder)
    engine.start()
    try:
        context = folder / "context"
        context.mkdir(exist_ok=True)
        engine.make_base(tools.mirror())
        engine.make_stand_ins(context)
        engine.make_rust("rust:1.95-bookworm", context)
        engine.docker("build", "--quiet", "--network", "host", "--file", "deploy/Dockerfile", "--tag", IMAGE, ".", cwd=ROOT)
        size = int(engine.docker("image", "inspect", IMAGE, "--format", "{{.Size}}")) / 1e6
        print(f"         the image is {size:.0f} MB", flush=True)
    finally:
        engine.stop()


def inside(tools: Tools, folder: pathlib.Path) -> None:
    """The scenario, inside a network namespace of its own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # The engine gives this address to containers as that of their host.
    subprocess.run(["ip", "address", "add", "198.18.0.1/32", "dev", "lo"], check=True)
    engine = Engine(tools, folder)
    engine.start(bridges=True)
    stand_in = standin.StandIn("0.0.0.0")
    work = folder / f"work-{os.getpid()}"
    work.mkdir()
    try:
        play(Containers(engine, work, stand_in), stand_in)
    finally:
        engine.stop()


def in_containers(tools: Tools) -> str:
    """Builds, then goes on in a namespace of its own."""
    folder = tools.cache / "engine"
    folder.mkdir(exist_ok=True)
    if os.environ.get(INSIDE):
        inside(tools, folder)
        return "by Compose"
    if os.geteuid() != 0:
        raise Skipped("a container engine of our own needs root")
    build(tools, folder)
    command = ["unshare", "--net", sys.executable, *sys.argv]
    done = subprocess.run(command, env=os.environ | {INSIDE: "1"})
    if done.returncode != 0:
        raise Failed("see above")
    return "by Compose"


CHECKS = [("the stack works, in containers by Compose", in_containers)]
