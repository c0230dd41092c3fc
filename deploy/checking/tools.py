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
        unpacked = self.unpacked(package, [package])
        found = shutil.which(name, path=f"{unpacked}/usr/bin:{unpacked}/usr/sbin")
        if not found:
            raise Skipped(f"{name} is not in the Debian package {package}")
        return found

    def started(self, name: str) -> list[str]:
        """How a program is started that looks for its data below /usr/share: where its package is only unpacked, in a
        mount namespace of its own that shows the package's data there."""
        program = self.program(name)
        package = PACKAGES.get(name, name)
        share = self.cache / "debian" / package / "usr/share"
        if not program.startswith(str(share.parent.parent)):
            return [program]
        alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
        show = 'mount -t overlay overlay -o "lowerdir=$0:/usr/share" /usr/share && exec "$@"'
        return [*alone, "sh", "-c", show, str(share), program]

    def installed(self, name: str, package: str) -> None:
        """Sees to it that the system has a program that cannot be unpacked elsewhere; skips the check where it lacks it."""
        if shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin"):
            return
        if not self.offline and os.geteuid() == 0 and shutil.which("apt-get"):
            print(f"== installing {package}", flush=True)
            install = ["apt-get", "install", "-y", "-qq", package]
            environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
            if subprocess.run(install, capture_output=True, env=environment, timeout=PATIENCE).returncode == 0:
                return
        raise Skipped(f"{name} (package {package}) is not installed")

    def unpacked(self, name: str, packages: list[str], release: str | None = None) -> pathlib.Path:
        """The folder into which Debian packages are unpacked, of the system's own release or of another."""
        into = self.cache / "debian" / name
        with self._alone():
            if not into.exists():
                if self.offline:
                    raise Skipped(f"the Debian packages {', '.join(packages)} are not there")
                self._unpack(packages, into, release)
        return into

    def _unpack(self, packages: list[str], into: pathlib.Path, release: str | None) -> None:
        what = f"the Debian packages {', '.join(packages)}"
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise Skipped(f"this is no Debian to fetch {what} from")
        print(f"== fetching {what}", flush=True)
        downloads = into.with_name(f"{into.name}.download")
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        # Another release has lists of its own; the system's stay as they are.
        apt = ["apt-get", *self._lists_of(release, downloads / "lists")] if release else ["apt-get"]
        fetch = [*apt, "download", "-q", *packages]
        done = subprocess.run(fetch, cwd=downloads, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0 and (release or os.geteuid() == 0):
            subprocess.run([*apt, "update", "-qq"], capture_output=True, timeout=PATIENCE)
            done = subprocess.run(fetch, cwd=downloads, capture_output=True, text=True, timeout=PATIENCE)
        archives = list(downloads.glob("*.deb"))
        if done.returncode != 0 or len(archives) < len(packages):
            raise Skipped(f"{what} cannot be fetched")
        partial = into.with_name(f"{into.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for archive in archives:
            subprocess.run(["dpkg", "-x", str(archive), str(partial)], check=True)
        partial.rename(into)
        shutil.rmtree(downloads)

    def mirror(self) -> str:
        """Where this system gets its Debian packages from."""
        ask = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian"]
        sites = subprocess.run(ask, capture_output=True, text=True).stdout.split()
        sites = [site for site in sites if "security" not in site]
        if not sites:
            raise Skipped("no Debian mirror is known")
        return sites[0]

    def _lists_of(self, release: str, folder: pathlib.Path) -> list[str]:
        for part in ("etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg"):
            (folder / part).mkdir(parents=True)
        (folder / "var/lib/dpkg/status").touch()
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (folder / "etc/apt/sources.list").write_text(f"deb [signed-by={keys}] {self.mirror()} {release} main\n")
        options = {
            "Dir": folder,
            "Dir::State::status": folder / "var/lib/dpkg/status",
            "Dir::Etc::sourceparts": "/dev/null",
            "APT::Sandbox::User": "root",
        }
        return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    @contextlib.contextmanager
    def _alone(self):
        """One at a time, over all processes that share the cache."""
        with open(self.cache / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def run(command: list[str], patience: float = PATIENCE, **options) -> str:
    """Runs a program and returns what it printed; its failure is the check's."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, **options)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command[:3])} …: not done in {patience:.0f} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise Failed(f"{' '.join(command[:3])} …: exit code {done.returncode}\n{said[-3000:]}")
    return done.stdout + done.stderr
