"""The two images the testbed needs, built once from Debian packages and kept in the daemon.

machine: Debian 12 with systemd, sshd and Docker, and no Python. llama: the real llama.cpp
server under the reference that services/llama-cpp.yaml names. Run as
`python3 -m testbed.images` to build both.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed import compose, debian
from testbed.shell import CommandError, alone, cache_dir, run

MACHINE_SUITE = "bookworm"
MACHINE_PACKAGES = [
    "ca-certificates",
    "curl",
    "dbus",
    "docker.io",
    "iproute2",
    "iptables",
    "jq",
    "kmod",
    "openssh-server",
    "procps",
    "sudo",
    "systemd",
    "systemd-sysv",
]
LLAMA_SUITE = "sid"
LLAMA_PACKAGES = ["coreutils", "curl", "dash", "llama.cpp-tools"]
_HERE = Path(__file__).parent
_KIND = _HERE.parents[1] / "services" / "llama-cpp.yaml"
# Part of every key: raise it when this module builds an image in another way.
_REVISION = "1"


def _llama_reference() -> str:
    """Return the image that services/llama-cpp.yaml names; no YAML parser is at hand here."""
    found = re.search(r"^\s+image:\s*(\S+)", _KIND.read_text(), re.M)
    if found is None:
        raise RuntimeError(f"{_KIND} names no image")
    return found[1].strip("\"'")


LLAMA = _llama_reference()


def recipe_hash(*parts: str | Path) -> str:
    """Return a short key over words, files and folders (names, modes and contents)."""
    digest = hashlib.sha256()
    for part in parts:
        files = sorted(part.rglob("*")) if isinstance(part, Path) and part.is_dir() else [part]
        for file in files:
            if isinstance(file, str):
                digest.update(file.encode())
            elif file.is_file():
                digest.update(f"{file.name}\0{file.stat().st_mode & 0o777:o}".encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def exists(image: str) -> bool:
    """Whether this machine's Docker daemon has an image of this name."""
    try:
        run("docker", "image", "inspect", image)
    except CommandError:
        return False
    return True


def import_root(root: Path, tag: str, *changes: str) -> None:
    """Make an image of one layer from a root folder."""
    options = [word for change in changes for word in ("--change", change)]
    with tempfile.NamedTemporaryFile(dir=cache_dir(), suffix=".tar") as archive:
        run("tar", "--numeric-owner", "--xattrs", "-C", root, "-cf", archive.name, ".")
        run("docker", "import", *options, archive.name, tag)


def llama_archive(reference: str = LLAMA) -> Path:
    """Return a `docker save` archive of the llama.cpp server image under this reference."""
    key = recipe_hash(LLAMA_SUITE, *LLAMA_PACKAGES, reference, _REVISION)
    kept = cache_dir() / "images" / f"llama-{key}.tar"
    kept.parent.mkdir(exist_ok=True)
    if not kept.exists() or not exists(reference):
        with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
            work = Path(folder)
            root = work / "root"
            debian.unpack(debian.download(LLAMA_SUITE, LLAMA_PACKAGES, work), root)
            _finish_llama(root)
            import_root(
                root,
                reference,
                'ENTRYPOINT ["/app/llama-server"]',
                "ENV LLAMA_ARG_HOST=0.0.0.0",
                'HEALTHCHECK CMD ["curl", "-f", "http://localhost:8080/health"]',
                "EXPOSE 8080",
                "WORKDIR /app",
            )
            run("docker", "save", "-o", work / "saved.tar", reference)
            (work / "saved.tar").rename(kept)
    return kept


def _finish_llama(root: Path) -> None:
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / folder).mkdir(parents=True, exist_ok=True)
        if not (root / folder).exists():
            (root / folder).symlink_to(f"usr/{folder}")
    for folder in ("app", "tmp", "proc", "sys", "dev", "models"):
        (root / folder).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "app" / "llama-server").symlink_to("/usr/bin/llama-server")
    if not (root / "usr/bin/sh").exists():
        (root / "usr/bin/sh").symlink_to("dash")
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"):
        shutil.rmtree(root / folder, ignore_errors=True)
    run("ldconfig", "-r", root)


def machine_image() -> str:
    """Return the tag of the machine image, building it when its recipe has changed."""
    overlay, runtime = _HERE / "machine", _HERE / "oci-runtime"
    key = recipe_hash(MACHINE_SUITE, *MACHINE_PACKAGES, compose.SUITE, overlay, runtime, _REVISION)
    tag = f"inferbase-test/machine:{key}"
    if not exists(tag):
        with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
            root = Path(folder) / "root"
            run(
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(MACHINE_PACKAGES)}",
                f"--keyring={debian.KEYRING}",
                MACHINE_SUITE,
                root,
                debian.mirror(),
                timeout=900,
            )
            run("cp", "-rT", "--preserve=mode", overlay / "etc", root / "etc")
            _put(runtime, root / "usr/local/sbin/oci-runtime")
            _put(compose.binary(), root / compose.PLUGIN)
            script = (overlay / "setup.sh").read_bytes()
            run("chroot", root, "/bin/sh", "-s", stdin=script)
            import_root(root, tag, 'ENTRYPOINT ["/sbin/init"]')
    return tag


def _put(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)


def preloaded_image(reference: str = LLAMA) -> str:
    """Return the tag of the machine image whose own Docker daemon has the llama image already.

    Builds what is missing, the two images at the same time; other sessions wait. Loading the
    archive would take each machine 1.8 s; filling its volume from the image takes 0.2 s.
    """
    with alone("images"):
        compose.binary()
        with ThreadPoolExecutor(max_workers=2) as pool:
            building = pool.submit(machine_image)
            archive = pool.submit(llama_archive, reference).result()
            machine = building.result()
        tag = f"inferbase-test/preloaded:{recipe_hash(machine, archive.name, _REVISION)}"
        if not exists(tag):
            _preload(machine, archive, tag)
        return tag


def _preload(machine: str, archive: Path, tag: str) -> None:
    """Run only the inner daemon, load the archive into it and keep its image store in an image."""
    script = (
        "dockerd >/tmp/dockerd.log 2>&1 & pid=$!; i=0; "
        "until docker version >/dev/null 2>&1; do i=$((i+1)); "
        "[ $i -lt 100 ] || { cat /tmp/dockerd.log >&2; exit 1; }; sleep 0.1; done; "
        "docker load >&2 && kill $pid && wait $pid; "
        "tar -C / -cf - var/lib/docker/image var/lib/docker/overlay2"
    )
    with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
        store = Path(folder) / "store.tar"
        loader = [
            "docker", "run", "--rm", "-i", "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE",
            "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--security-opt", "systempaths=unconfined", "--tmpfs", "/run:exec", "--cgroupns",
            "host", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "-v", "/var/lib/docker",
            "--entrypoint", "/bin/sh", machine, "-c", script,
        ]  # fmt: skip
        with archive.open("rb") as source, store.open("wb") as sink:
            subprocess.run(loader, stdin=source, stdout=sink, check=True)
        container = run("docker", "create", machine).strip()
        try:
            with store.open("rb") as source:
                target = f"{container}:/"
                subprocess.run(["docker", "cp", "-a", "-", target], stdin=source, check=True)
            run("docker", "commit", container, tag)
        finally:
            run("docker", "rm", container)


if __name__ == "__main__":
    print(preloaded_image())
