"""A container engine for the stack's check: the one that is running, or one of our own.

Our own is Debian's dockerd, unpacked beside the other tools and started with its data, its socket and its
process in a folder of its own. It has no bridge and touches no firewall: containers share the network of the
one they are told to, and see loopback alone.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

from report import Failed, Skipped
from tools import Tools

PACKAGES = ["docker.io", "containerd", "runc", "tini"]
# Debian's present release has no Compose of version 2; a later one has, as plugins that run anywhere.
PLUGINS = {"trixie": ["docker-compose", "docker-buildx"]}
BASE = "debian:bookworm-slim"
# What the Compose stack runs beside the project's own image: the Debian package, and how it starts.
STAND_INS = {
    "redis:7.4-bookworm": ("redis-server", "[]"),
    "prom/prometheus:v3.5.0": ("prometheus", '["prometheus"]'),
    "prom/alertmanager:v0.28.1": ("prometheus-alertmanager", '["prometheus-alertmanager"]'),
}
PATIENCE = 3600


class Engine:
    """A running engine, and how to speak to it."""

    def __init__(self, tools: Tools, folder: pathlib.Path):
        self.tools, self.folder, self.daemon = tools, folder, None
        self.environment = dict(os.environ, DOCKER_BUILDKIT="1", BUILDKIT_PROGRESS="plain")

    def docker(self, *words: str, timeout: int = PATIENCE, check: bool = True, **options) -> str:
        """Runs docker; what it printed."""
        command = [self.client, *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, timeout=timeout, **options)
        if check and done.returncode != 0:
            raise Failed(f"docker {' '.join(words[:4])}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def start(self, bridges: bool = False) -> None:
        """Starts an engine of our own, with networks of its own only inside a network namespace of its own."""
        if os.geteuid() != 0:
            raise Skipped("a container engine of our own needs root")
        if bridges:
            # The engine's own names for containers are answered by way of a rule within each container.
            self.tools.installed("iptables", "iptables")
        root = self.tools.unpacked("docker-engine", PACKAGES)
        plugins = self.folder / "client/cli-plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        for release, packages in PLUGINS.items():
            later = self.tools.unpacked(f"docker-plugins-{release}", packages, release)
            for plugin in (later / "usr/libexec/docker/cli-plugins").iterdir():
                shutil.copy(plugin, plugins)
        path = f"{root}/usr/bin:{root}/usr/sbin:{os.environ['PATH']}"
        self.client = shutil.which("docker", path=path)
        socket = self.folder / "docker.sock"
        self.environment |= {"PATH": path, "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": str(plugins.parent)}
        command = [shutil.which("dockerd", path=path), "--data-root", str(self.folder / "data")]
        command += ["--exec-root", str(self.folder / "exec"), "--host", f"unix://{socket}"]
        command += ["--pidfile", str(self.folder / "pid"), "--bridge=none", "--iptables=false", "--ip6tables=false"]
        command += ["--ip-forward=false", "--ip-masq=false", "--oom-score-adjust=0", f"--userland-proxy={str(bridges).lower()}"]
        if bridges:
            command += ["--host-gateway-ip", "198.18.0.1"]
        with open(self.folder / "dockerd.log", "w") as log:
            self.daemon = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + 60
        while not socket.exists() or not self._answers():
            if self.daemon.poll() is not None or time.monotonic() > end:
                log = (self.folder / "dockerd.log").read_text()[-600:]
                self.stop()
                raise Skipped(f"the container engine does not start here: {log}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        done = subprocess.run([self.client, "version"], capture_output=True, env=self.environment)
        return done.returncode == 0

    def stop(self) -> None:
        """Ends our own engine."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.daemon.wait(30)
            if self.daemon.poll() is None:
                self.daemon.kill()

    def has(self, image: str) -> bool:
        """Whether an image is there."""
        done = subprocess.run([self.client, "image", "inspect", image], capture_output=True, env=self.environment)
        return done.returncode == 0

    def make_base(self, mirror: str) -> None:
        """A bare Debian from the machine's own mirror, under the name that stand-ins build on."""
        if self.has(BASE):
            return
        mmdebstrap = shutil.which("mmdebstrap") or str(self.tools.unpacked("mmdebstrap", ["mmdebstrap"]) / "usr/bin/mmdebstrap")
        tar = self.folder / "base.tar"
        command = [mmdebstrap, "--variant=minbase", "--include=ca-certificates", "bookworm", str(tar), mirror]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise Skipped(f"no base image: {done.stderr[-400:]}")
        self.docker("import", str(tar), BASE)
        tar.unlink()

    def make_stand_ins(self, folder: pathlib.Path) -> None:
        """Images for what the stack takes from elsewhere, made of Debian's packages under the names it asks for."""
        for name, (package, entrypoint) in STAND_INS.items():
            if self.has(name):
                continue
            (folder / "Dockerfile").write_text(
                f"FROM {BASE}\nRUN apt-get update -qq && apt-get install -y -qq --no-install-recommends {package} >/dev/null\n"
                f"RUN mkdir -p /data /prometheus /alertmanager && chmod 777 /data /prometheus /alertmanager\nWORKDIR /data\n"
                f"ENTRYPOINT {entrypoint}\n"
            )
            self.docker("build", "--quiet", "--network", "host", "--tag", name, str(folder))

    def make_rust(self, name: str, folder: pathlib.Path) -> None:
        """The image that the Dockerfile builds on, with this machine's own toolchain in it."""
        if self.has(name):
            return
        sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
        tar = ["tar", "-C", sysroot, "--exclude=share/doc", "--exclude=lib/rustlib/src", "-cf", str(folder / "rust.tar"), "bin", "lib"]
        subprocess.run(tar, check=True)
        shutil.copy("/etc/ssl/certs/ca-certificates.crt", folder / "ca.crt")
        (folder / "Dockerfile").write_text(
            f"FROM {BASE}\nCOPY ca.crt /etc/ssl/certs/ca-certificates.crt\n"
            "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev >/dev/null\n"
            "ADD rust.tar /usr/local/\n"
            "ENV CARGO_HOME=/usr/local/cargo CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt\n"
        )
        self.docker("build", "--quiet", "--network", "host", "--tag", name, str(folder))
        (folder / "rust.tar").unlink()
