"""The whole stack at work: real programs, a real Redis, Prometheus and Alertmanager, faults, and an alert that arrives.

What happens is the same whether the stack runs in containers (`containers_stack`) or as processes of this machine, which is
what this module knows how to start.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request

import yaml

import dashboards
import standin
from report import Failed, Skipped
from tools import ROOT, Tools, run

TEXTS = 240
PER_SECOND = 12
PATIENCE = 120
# From nothing, on a machine that does other things as well.
BUILD = 1800
# No rate of ours between the texts and the check's end.
UNLIMITED = '\n[channel.{}]\nrate = "off"\nrate_per_destination = "off"\n'


def wait_for(what: str, condition, patience: float = PATIENCE):
    """Polls until something is true; its value."""
    end = time.monotonic() + patience
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"in {patience:.0f} s it did not come true that {what}")
        time.sleep(0.2)


def get(url: str) -> str:
    """The body of an answer, empty without one."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def values(prometheus: str, query: str) -> list[float]:
    """What Prometheus says to a query, by its values that are numbers."""
    answer = get(f"{prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
    if not answer:
        return []
    found = [float(result["value"][1]) for result in json.loads(answer)["data"]["result"]]
    return [value for value in found if value == value]


def configuration(api: str) -> str:
    """The Compose stack's configuration, without rates and with Twilio's API elsewhere."""
    text = (ROOT / "deploy/compose/config.toml").read_text()
    text = text.replace("[twilio]\n", f'[twilio]\napi_base = "{api}"\n')
    text = text.replace("[ingress]\n", '[ingress]\nrate_per_ip = "off"\n')
    faster = '\n[retry]\nbase = "200ms"\n\n[worker]\nlease = "3s"\n'
    return text + faster + "".join(UNLIMITED.format(channel) + 'timeout = "2s"\n' for channel in ("sms", "slack"))


def scenario(stack, stand_in: standin.StandIn, say) -> None:
    """What the stack has to live through."""
    say("texts come in, with repeats, forgeries and strangers; a worker is killed, one is drained, one is added")
    accepted = []
    began = time.monotonic()
    for number in range(TEXTS):
        sid = f"SM{number:032x}"
        sender = standin.UNKNOWN if number % 10 == 9 else standin.KNOWN
        status = standin.post(stack.ingress, sid, sender, f"your code is {100_000 + number}")
        if status != 200:
            raise Failed(f"a good text was answered {status}")
        if sender == standin.KNOWN:
            accepted.append(f"{100_000 + number}")
        if number % 20 == 0:
            standin.post(stack.ingress, sid, sender, f"your code is {100_000 + number}")
            forged = standin.post(stack.ingress, f"SM{number + 10**6:032x}", sender, "forged", token="another")
            malformed = standin.post(stack.ingress, "nonsense", sender, "malformed")
            if (forged, malformed) != (403, 400):
                raise Failed(f"a forged and a malformed request were answered {forged} and {malformed}")
        if number == TEXTS // 4:
            stack.kill_a_worker()
        if number == TEXTS // 2:
            stack.add_a_worker()
        if number == 3 * TEXTS // 4:
            code = stack.drain_a_worker()
            if code != 0:
                raise Failed(f"a drained worker ended with {code}")
        time.sleep(max(0.0, began + number / PER_SECOND - time.monotonic()))

    say("every text reaches everybody it should")
    stats = {}

    def is_at_rest():
        nonlocal stats
        stats = json.loads(stack.smsctl("stats", "--json"))
        return stats["deliveries"]["pending"] == 0

    wait_for("nothing is pending", is_at_rest)
    for who in (standin.GOOD, standin.FLAKY, "/slack/good"):
        texts = " ".join(stand_in.texts[who])
        missing = [code for code in accepted if code not in texts]
        if missing:
            raise Failed(f"{who} lacks {len(missing)} of {len(accepted)} codes")
    strangers = TEXTS - len(accepted)
    expected = {"delivered": 3 * len(accepted) + strangers, "dead": strangers, "expired": 0, "pending": 0}
    if stats["accepted"] != TEXTS or stats["deliveries"] != expected:
        raise Failed(f"the books say {stats}, not {TEXTS} accepted and {expected}")

    say("Redis is killed: texts are refused, and the alert arrives")
    stack.kill_redis()
    wait_for("a text is refused", lambda: standin.post(stack.ingress, f"SM{10**7:032x}", standin.KNOWN, "too early") == 503)
    wait_for("the page about refused webhooks arrives", lambda: has_arrived(stand_in, "SmsBroadcasterWebhooksRefused"))
    stack.start_redis()
    # The same text again, as Twilio repeats it.
    wait_for("texts are taken again", lambda: standin.post(stack.ingress, f"SM{10**7:032x}", standin.KNOWN, "now 777000") == 200)
    wait_for("it is delivered", lambda: any("777000" in text for text in stand_in.texts[standin.GOOD]))
    wait_for("the ticket about dead letters arrives", lambda: has_arrived(stand_in, "SmsBroadcasterDeadLetters"))
    body = next(alert for alert in stand_in.alerts if "SmsBroadcasterWebhooksRefused" in alert)
    if "docs/runbooks/SmsBroadcasterWebhooksRefused.md" not in body:
        raise Failed(f"the page does not say what to do: {body}")

    say("every panel of every dashboard has data")
    empty = []

    def all_have_data():
        empty[:] = [where for where, query in dashboards.queries()
                    if not values(stack.prometheus, dashboards.resolved(query, **{"$__rate_interval": "60s"}))]
        return not empty

    try:
        wait_for("every panel has data", all_have_data, 60)
    except Failed:
        raise Failed("\n".join(f"no data: {where}" for where in empty)) from None

    say("the programs end well")
    codes = stack.stop_programs()
    if any(codes):
        raise Failed(f"exit codes of the stopped programs: {codes}")


def play(stack, stand_in: standin.StandIn) -> None:
    """The scenario on a stack that is brought up for it; a failure comes with the stack's last words."""
    began = time.monotonic()
    try:
        stack.up()
        scenario(stack, stand_in, lambda what: print(f"         {time.monotonic() - began:5.1f} s  {what}", flush=True))
    except Failed as fault:
        raise Failed(f"{fault}\n{stack.last_words()}") from None
    finally:
        stack.down()


def has_arrived(stand_in: standin.StandIn, alert: str) -> bool:
    """Whether somebody was told of an alert."""
    return any(alert in body for body in stand_in.alerts)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Processes:
    """The stack as processes of this machine, with the files of the Compose stack."""

    def __init__(self, tools: Tools, folder: pathlib.Path, stand_in: standin.StandIn):
        self.folder = folder
        self.running: list[tuple[str, subprocess.Popen]] = []
        self.redis_port, ingress, self.prometheus_port, alertmanager = (free_port() for _ in range(4))
        self.ingress = f"http://127.0.0.1:{ingress}"
        self.prometheus = f"http://127.0.0.1:{self.prometheus_port}"
        self.alertmanager = f"127.0.0.1:{alertmanager}"
        self.tools = tools
        run(["cargo", "build", "--quiet", "--locked", "--bins"], patience=BUILD, cwd=ROOT)
        metadata = json.loads(run(["cargo", "metadata", "--no-deps", "--locked", "--format-version=1"], cwd=ROOT))
        self.programs = pathlib.Path(metadata["target_directory"]) / "debug"
        (folder / "subscribers.toml").write_text(stand_in.subscribers("127.0.0.1"))
        self.text = configuration(f"http://127.0.0.1:{stand_in.port}")
        self.text = self.text.replace("0.0.0.0:8080", f"127.0.0.1:{ingress}").replace("@redis:6379", f"@127.0.0.1:{self.redis_port}")
        self.environment = dict(os.environ, TWILIO_SID=standin.ACCOUNT, TWILIO_AUTH_TOKEN=standin.TOKEN,
                                MFA_FROM_PHONE=standin.OURS, PUBLIC_URL=standin.PUBLIC_URL, REDIS_PASSWORD="p",
                                MFA_SLACK_WEBHOOK="http://127.0.0.1/unused")
        # Room for the worker that is added later.
        self.ops = [free_port() for _ in range(4)]
        self.configure(stand_in)

    def configure(self, stand_in: standin.StandIn) -> None:
        """Prometheus and Alertmanager by their own files, with what differs on one machine: addresses, and haste."""
        rules = self.folder / "rules"
        rules.mkdir()
        for file in (ROOT / "deploy/prometheus/rules").glob("*.yml"):
            (rules / file.name).write_text(file.read_text().replace("interval: 30s", "interval: 1s"))
        config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [f"{rules}/*.yml"]
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [self.alertmanager]
        targets = {"sms-ingress": self.ops[:1], "sms-worker": self.ops[1:], "prometheus": [self.prometheus_port]}
        kept = [job for job in config["scrape_configs"] if job["job_name"] in targets]
        for job in kept:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in targets[job["job_name"]]]}]
        config["scrape_configs"] = kept
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        (self.folder / "webhook").write_text(f"http://127.0.0.1:{stand_in.port}/alerts")
        receivers = (ROOT / "deploy/prometheus/alertmanager.yml").read_text()
        (self.folder / "alertmanager.yml").write_text(receivers.replace("/run/secrets/alert_webhook", str(self.folder / "webhook")))

    def spawn(self, name: str, command: list[str]) -> None:
        """Starts a process whose words go to a file."""
        with open(self.folder / f"{name}.log", "a") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment)
        self.running.append((name, process))

    def up(self) -> None:
        """Starts everything and waits until it is well."""
        self.start_redis()
        self.start_program("sms-ingress", self.ops[0])
        for port in self.ops[1:3]:
            self.start_program("sms-worker", port)
        self.spawn("alertmanager", [
            *self.tools.started("prometheus-alertmanager"), f"--config.file={self.folder}/alertmanager.yml",
            f"--storage.path={self.folder}/alertmanager", f"--web.listen-address={self.alertmanager}",
            "--cluster.listen-address="])
        self.spawn("prometheus", [
            self.tools.program("prometheus"), f"--config.file={self.folder}/prometheus.yml",
            f"--storage.tsdb.path={self.folder}/prometheus", f"--web.listen-address=127.0.0.1:{self.prometheus_port}"])
        wait_for("Prometheus answers", lambda: get(f"{self.prometheus}/-/ready"))
        wait_for("Alertmanager answers", lambda: get(f"http://{self.alertmanager}/-/ready"))
        wait_for("the programs are scraped", lambda: len(values(self.prometheus, 'up{job=~"sms-.*"} == 1')) == 3)

    def start_program(self, program: str, ops: int) -> None:
        """Starts one of ours and asks for its health as a container would."""
        file = self.folder / f"{program}-{ops}.toml"
        file.write_text(self.text.replace("0.0.0.0:9464", f"127.0.0.1:{ops}"))
        self.spawn(program, [str(self.programs / program), "--config", str(file)])
        health = [str(self.programs / "sms-broadcaster"), "--health", "--config", str(file)]
        wait_for(f"{program} is healthy", lambda: subprocess.run(health, capture_output=True, env=self.environment).returncode == 0)
        served = get(f"http://127.0.0.1:{ops}/metrics")
        done = subprocess.run([self.tools.program("promtool"), "check", "metrics"], input=served, capture_output=True, text=True)
        # 3: lint; only the names that the contract with users fixes may be told of.
        lint = [line for line in done.stderr.splitlines() if line and "non-histogram and non-summary" not in line]
        if done.returncode not in (0, 3) or lint:
            raise Failed(f"/metrics of {program}: {lint}")

    def smsctl(self, *words: str) -> str:
        """Runs the operator's command line."""
        file = self.folder / f"sms-ingress-{self.ops[0]}.toml"
        done = subprocess.run([str(self.programs / "smsctl"), "--config", str(file), *words], capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"smsctl {' '.join(words)}: {done.stderr}")
        return done.stdout

    def one(self, name: str) -> subprocess.Popen:
        """The longest-running process of a name; no longer in the list."""
        entry = next(entry for entry in self.running if entry[0] == name)
        self.running.remove(entry)
        return entry[1]

    def kill_a_worker(self) -> None:
        worker = self.one("sms-worker")
        worker.kill()
        worker.wait()

    def drain_a_worker(self) -> int:
        worker = self.one("sms-worker")
        worker.terminate()
        return worker.wait(60)

    def add_a_worker(self) -> None:
        self.start_program("sms-worker", self.ops[3])

    def kill_redis(self) -> None:
        redis = self.one("redis")
        redis.kill()
        redis.wait()

    def start_redis(self) -> None:
        """By the options of the Compose stack."""
        options = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["redis"]["command"][1:]
        options = [re.sub(r"\$\{REDIS_PASSWORD.*", "p", re.sub(r"\$\{\w+:-(\w+)\}", r"\1", option)) for option in options]
        server = shutil.which("redis-server")
        if not server:
            raise Skipped("redis-server is not installed")
        folder = self.folder / "redis"
        folder.mkdir(exist_ok=True)
        self.spawn("redis", [server, "--port", str(self.redis_port), "--bind", "127.0.0.1", "--dir", str(folder), *options])

    def stop_programs(self) -> list[int]:
        """SIGTERM to what is left of ours; their exit codes."""
        ours = [process for name, process in self.running if name.startswith("sms-")]
        for process in ours:
            process.terminate()
        return [process.wait(60) for process in ours]

    def down(self) -> None:
        """Ends everything."""
        for _, process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()

    def last_words(self) -> str:
        """The ends of the logs, for whoever has to find out."""
        lines = []
        for file in sorted(self.folder.glob("*.log")):
            lines += [f"-- {file.name}", *file.read_text(errors="replace").splitlines()[-12:]]
        return "\n".join(lines)


def as_processes(tools: Tools) -> str:
    """The scenario on processes of this machine."""
    with tempfile.TemporaryDirectory(prefix="sms-broadcaster-stack-") as name:
        stand_in = standin.StandIn("127.0.0.1")
        try:
            play(Processes(tools, pathlib.Path(name), stand_in), stand_in)
        finally:
            stand_in.server.shutdown()
    return f"{TEXTS} texts"


CHECKS = [("the stack works, as processes of this machine", as_processes)]
