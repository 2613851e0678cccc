"""The programs that are needed: Debian's are installed where they are missing, our own are built."""

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from .peers import BEFORE, PROGRAMS
from .procs import Failure

ROOT = Path(__file__).resolve().parents[2]
LOADTEST = ROOT / "loadtest"
OUT = LOADTEST / "out"
POLICY = Path("/usr/sbin/policy-rc.d")
# Where Debian puts daemons, which is not in everybody's PATH.
os.environ["PATH"] += ":/usr/sbin:/usr/local/sbin"


def require(programs):
    """Installs Debian's packages of those programs (a dict from program to package) that are missing."""
    missing = sorted({package for program, package in programs.items() if shutil.which(program) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Failure(f"missing: {' '.join(missing)}. As root on Debian this command installs them; "
                      f"here please do it yourself: sudo apt-get install {' '.join(missing)}")
    print(f"installing {' '.join(missing)}", flush=True)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    own_policy = not POLICY.exists()
    if own_policy:
        # Debian starts a daemon when it is installed. Here it would only be in the way.
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing]
        if subprocess.run(install, env=env, stdout=subprocess.DEVNULL).returncode != 0:
            subprocess.run(["apt-get", "update", "-q"], env=env, stdout=subprocess.DEVNULL)
            if subprocess.run(install, env=env, stdout=subprocess.DEVNULL).returncode != 0:
                raise Failure(f"apt-get could not install {' '.join(missing)}")
    finally:
        if own_policy:
            POLICY.unlink()


def build(with_sluice=True, frame_pointers=False):
    """Builds sluice and the load tools in release mode and returns the folder of the executables."""
    metadata = subprocess.run(["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT,
                              capture_output=True, check=True).stdout
    target, env = Path(json.loads(metadata)["target_directory"]), dict(os.environ)
    if frame_pointers:
        # A folder of its own, so that the ordinary build stays as it is.
        target = target / "profile"
        env["RUSTFLAGS"] = f"{env.get('RUSTFLAGS', '')} -C force-frame-pointers=yes".strip()
    command = ["cargo", "build", "--release", "--examples", "--target-dir", target,
               *(["--bin", "sluice"] if with_sluice else [])]
    print("building", flush=True)
    if subprocess.run(command, cwd=ROOT, env=env).returncode != 0:
        raise Failure("the build failed")
    return target / "release"


def versions(peers):
    """What ran, in the words of each program."""
    commands = {"wrk": ["wrk", "-v"], **{name: [program, "-v"] for name, program in PROGRAMS.items() if name != BEFORE}}
    found = {}
    for name in [*peers, "wrk"]:
        if name in commands:
            done = subprocess.run(commands[name], capture_output=True, text=True)
            number = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
            found[name] = number.group() if number else "?"
    return found


def machine():
    """Where this was measured, in one line."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text()).group(1)) / 2**20
    virtual = "virtual machine, " if "hypervisor" in Path("/proc/cpuinfo").read_text() else ""
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return (f"{model.group(1) if model else platform.machine()}, {virtual}{os.cpu_count()} cores, "
            f"{memory:.0f} GiB, Linux {platform.release()}, TCP {congestion}")


def revision():
    """The commit, and whether there are changes beside it."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "src", "Cargo.toml", "Cargo.lock")
    return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
