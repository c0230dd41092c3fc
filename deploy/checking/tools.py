"""Where the tools come from.

Python packages go into a virtual environment of this project's own, programs of Debian packages are unpacked
beside it; both are kept in a cache folder and nothing is installed in the system. Whoever has a program in
the path uses that one.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

from report import Failed, Skipped

ROOT = pathlib.Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "deploy/checking/requirements.txt"
# Debian package of each program that may be unpacked.
PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
}
PATIENCE = 300


class Tools:
    """Finds, or brings, what the checks need."""

    def __init__(self, offline: bool):
        self.offline = offline
        base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        self.cache = pathlib.Path(base) / "sms-broadcaster-checks"
        self.cache.mkdir(parents=True, exist_ok=True)

    def enter_python(self) -> None:
        """Goes on inside the virtual environment, unless it is there already or cannot be made."""
        wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:16]
        venv = self.cache / f"python-{wanted}"
        if sys.prefix == str(venv):
            return
        with self._alone():
            if not (venv / "complete").exists():
                if self.offline or not self._make(venv):
                    print("Python packages for the checks are missing and were not installed")
                    return
        python = venv / "bin/python3"
        os.execv(python, [str(python), *sys.argv])

    def _make(self, venv: pathlib.Path) -> bool:
        print(f"== installing the checks' Python packages into {venv}", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        steps = [
            [sys.executable, "-m", "venv", str(venv)],
            [str(venv / "bin/pip"), "install", "-q", "--disable-pip-version-check", "-r", str(REQUIREMENTS)],
        ]
        for step in steps:
            with contextlib.suppress(subprocess.TimeoutExpired, OSError):
                done = subprocess.run(step, capture_output=True, text=True, timeout=PATIENCE)
                if done.returncode == 0:
                    continue
                print(done.stderr.strip()[-500:])
            return False
        (venv / "complete").touch()
        return True

    def program(self, name: str) -> str:
        """The path of a program; skips the check where it cannot be had."""
        found = shutil.which(name) or shutil.which(name, path=str(pathlib.Path(sys.prefix) / "bin"))
        if found:
            return found
        package = PACKAGES.get(name)
        if package is None:
            raise Skipped(f"{name} is not installed")
        unpacked = self.cache / "debian" / package
        with self._alone():
            if not unpacked.exists():
                if self.offline:
                    raise Skipped(f"{name} is not installed")
                self._unpack(name, package, unpacked)
        found = shutil.which(name, path=f"{unpacked}/usr/bin:{unpacked}/usr/sbin")
        if not found:
            raise Skipped(f"{name} is not in the Debian package {package}")
        return found

    def _unpack(self, name: str, package: str, into: pathlib.Path) -> None:
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise Skipped(f"{name} is not installed, and this is no Debian to fetch its package {package} from")
        print(f"== fetching the Debian package {package}", flush=True)
        downloads = self.cache / "debian" / f"{package}.download"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        fetch = ["apt-get", "download", "-q", package]
        done = subprocess.run(fetch, cwd=downloads, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0 and os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, timeout=PATIENCE)
            done = subprocess.run(fetch, cwd=downloads, capture_output=True, text=True, timeout=PATIENCE)
        archives = list(downloads.glob("*.deb"))
        if done.returncode != 0 or not archives:
            raise Skipped(f"{name} is not installed, and its package {package} cannot be fetched")
        subprocess.run(["dpkg", "-x", str(archives[0]), str(into)], check=True)
        shutil.rmtree(downloads)

    @contextlib.contextmanager
    def _alone(self):
        """One at a time, over all processes that share the cache."""
        with open(self.cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def run(command: list[str], **options) -> str:
    """Runs a program and returns what it printed; its failure is the check's."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise Failed(f"{' '.join(command[:3])} …: exit code {done.returncode}\n{said[-3000:]}")
    return done.stdout + done.stderr
