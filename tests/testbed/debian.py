"""Debian packages of any suite, taken from the mirror that this machine's own apt uses.

A private apt (own sources, lists, cache and package status) resolves and downloads; nothing of
the machine's apt is changed and nothing is installed on it.
"""

from __future__ import annotations

import re
from pathlib import Path

from testbed.shell import run

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_COMPONENT_OF_DEBIAN = "main"


def _entries(text: str, deb822: bool) -> list[tuple[str, list[str], list[str]]]:
    """Return (URI, suites, components) of every enabled binary source in one sources file."""
    found = []
    if deb822:
        for stanza in re.split(r"\n\s*\n", text):
            lines = [line for line in stanza.splitlines() if not line.startswith("#")]
            fields = dict(
                re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t]+.*)*)", "\n".join(lines), re.M)
            )
            if "deb" in fields.get("Types", "").split() and fields.get("Enabled") != "no":
                for uri in fields.get("URIs", "").split():
                    found.append((uri, fields["Suites"].split(), fields["Components"].split()))
        return found
    for line in text.splitlines():
        words = re.sub(r"\[[^]]*\]", "", line.split("#")[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            found.append((words[1], [words[2]], words[3:]))
    return found


def mirror(apt_folder: Path = Path("/etc/apt")) -> str:
    """Return the URI of the Debian archive (not of the security archive) this machine uses."""
    files = [apt_folder / "sources.list", *sorted((apt_folder / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in {".list", ".sources"} or not file.is_file():
            continue
        for uri, suites, components in _entries(file.read_text(), file.suffix == ".sources"):
            plain = [name for name in suites if "security" not in name and "/" not in name]
            if plain and _COMPONENT_OF_DEBIAN in components and "security" not in uri:
                return uri.rstrip("/")
    raise RuntimeError(f"no source of Debian's component main below {apt_folder}")


def download(suite: str, packages: list[str], into: Path, *, alone: bool = False) -> list[Path]:
    """Download packages of a suite with everything they depend on; alone leaves that out.

    into keeps apt's state and the packages; the answer is the .deb files in it.
    """
    archives = into / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    (into / "lists" / "partial").mkdir(parents=True, exist_ok=True)
    (into / "empty").mkdir(exist_ok=True)
    (into / "status").touch()
    sources = into / "private.list"
    sources.write_text(f"deb [signed-by={KEYRING}] {mirror()} {suite} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": into / "empty",
        "Dir::Etc::PreferencesParts": into / "empty",
        "Dir::State::Lists": into / "lists",
        "Dir::State::Status": into / "status",
        "Dir::Cache": into,
        "Dir::Cache::Archives": archives,
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "false",
        # A mirror may be a snapshot; sid's signature then outlives its one-week validity.
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    options = [f"-o{name}={value}" for name, value in settings.items()]
    run("apt-get", "-qq", *options, "update")
    if alone:
        run(
            "sh",
            "-c",
            'cd "$1" && shift && apt-get -qq "$@"',
            "sh",
            archives,
            *options,
            "download",
            *packages,
        )
    else:
        run("apt-get", "-qq", "--yes", *options, "--download-only", "install", *packages)
    return sorted(archives.glob("*.deb"))


def unpack(debs: list[Path], root: Path) -> None:
    """Unpack packages below root without running their scripts."""
    root.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        run("dpkg-deb", "--extract", deb, root)
