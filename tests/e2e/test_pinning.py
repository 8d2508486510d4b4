"""A model in huge pages on a machine with its own kernel: taken, used, given back, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from e2e.fleet import Fleet
from testbed.vm import KernelMachine

MODELS = "/srv/models"
MODEL = f"{MODELS}/m.gguf"
POOL = "/proc/sys/vm/nr_hugepages"
# Maps the file it is given as an engine does, reads a byte of each huge page, then answers HTTP.
MAPPER = r"""#!/usr/bin/perl
use IO::Socket::INET;
open(my $file, "<", $ARGV[0]) or die;
my $size = -s $file;
my $at = syscall(9, 0, $size, 1, 1, fileno($file), 0);
die "mmap: $!" if $at == -1;
pipe(my $in, my $out);
for (my $n = 0; $n < $size; $n += 2097152) { syscall(1, fileno($out), $at + $n, 1); }
my $door = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1:$ARGV[1]", ReuseAddr => 1);
while (my $one = $door->accept) {
  while (defined(my $line = <$one>)) { last if $line =~ /^\s*$/; }
  print $one "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
  close($one);
}
"""
KIND = {
    "summary": "maps its model and waits",
    "api": "http",
    "model": {"required": True},
    "default-port": 8080,
    "health": {"path": "/"},
    "process": {"command": [["{program}", "{model}", "{port}"]]},
}


class Place:
    """The machine with one service that maps a model of 6 MB and a bit."""

    def __init__(self, machine: KernelMachine, folder: Path) -> None:
        self.machine, self.fleet = machine, Fleet(folder, machine.home)
        (self.fleet.overlay / "services").mkdir()
        (self.fleet.overlay / "services" / "mapper.yaml").write_text(yaml.safe_dump(KIND))
        service = {"kind": "mapper", "model": MODEL, "program": "/usr/local/bin/mapper"}
        self.fleet.machine(
            machine.name, address=machine.name, sudo=True, root="/opt/inference",
            runtime="process", services={"maps": service},
        )  # fmt: skip
        machine.check(f"mkdir -p {MODELS} && head -c 6000001 /dev/urandom >{MODEL}")
        machine.check("cat >/usr/local/bin/mapper && chmod 755 /usr/local/bin/mapper",
                      stdin=MAPPER.encode())  # fmt: skip

    def invoke(self, task: str, *words: str) -> Any:
        words = (*words, "--service", "maps") if task.startswith("models.") else words
        return self.fleet.invoke(task, "--host", self.machine.name, *words)

    def huge_kib(self) -> int:
        """Memory of the service that is in huge pages."""
        text = self.machine.check(
            "cat /proc/$(cut -d ' ' -f 1 /opt/inference/.inferbase/run/maps/child)/smaps"
        )
        return sum(int(line.split()[1]) for line in text.splitlines() if "_Hugetlb:" in line)

    def state(self) -> str:
        """Pool, mounts, records and the model's own sum."""
        return self.machine.check(
            f"cat {POOL}; grep -E 'hugetlbfs inferbase|{MODELS}' /proc/self/mountinfo; "
            "find /var/lib/inferbase/pages /run/inferbase/pages -mindepth 1 2>/dev/null; "
            f"sha256sum {MODEL}; "
            f"stat -c '%s %Y' {MODEL}"
        )


def test_pages_are_taken_used_and_given_back(kernel_machine: KernelMachine, tmp_path: Path) -> None:
    place = Place(kernel_machine, tmp_path)
    machine = place.machine
    up = place.invoke("up")
    assert up.rc == 0, up
    assert place.huge_kib() == 0
    fresh = place.state()
    assert fresh.startswith("0\n")

    # A pool that does not grow, then a copy that fails half way: everything is taken back.
    pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    machine.check(
        f"echo 0 >/root/pool; mount --bind /root/pool {pool} && mount -o remount,bind,ro {pool}"
    )
    short = place.invoke("models.pin")
    assert short.rc == 1, short
    assert "0 of 3 huge pages could be had, 6 MiB are missing" in short.err
    machine.check(
        f"umount {pool}; mv /usr/bin/perl /usr/bin/perl.away; "
        "printf '#!/bin/sh\\necho broken >&2\\nexit 1\\n' >/usr/bin/perl; chmod 755 /usr/bin/perl"
    )
    broken = place.invoke("models.pin")
    assert broken.rc == 1, broken
    assert "broken" in broken.err
    machine.check("mv /usr/bin/perl.away /usr/bin/perl")
    assert place.state() == fresh

    pinned = place.invoke("models.pin")
    assert pinned.rc == 0, pinned
    assert "vm.nr_hugepages: 0 -> 3 (6 MiB more)" in pinned.err
    assert "restart maps" in pinned.err
    assert place.huge_kib() == 3 * 2048
    # The same bytes, read-only.
    copy = "/run/inferbase/pages/inference-maps/model"
    machine.check(
        f"unshare -m sh -c 'umount {MODEL} && cmp -n 6000001 {MODEL} {copy}'; "
        f"! (echo x >>{MODEL}) 2>/dev/null; [ $(cat {POOL}) = 3 ]"
    )
    again = place.invoke("models.pin", "--format", "json")
    assert "nothing to change" in again.err
    assert again.data["result"] == "unchanged"

    unpinned = place.invoke("models.unpin", "--format", "json")
    assert unpinned.rc == 0, unpinned
    assert unpinned.data == {
        "machine": again.data["machine"],
        "service": "maps",
        "result": "unpinned",
    }
    assert "3 -> 0 (6 MiB given back)" in unpinned.err
    assert place.huge_kib() == 0
    assert place.state() == fresh
