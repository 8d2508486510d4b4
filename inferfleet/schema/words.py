"""What may stand as a key or a value in the settings of a host: names, paths, words, amounts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferfleet.schema.fields import AbsolutePath, Matching

SysctlKey = Annotated[
    str,
    Matching(r"[a-z0-9_-]+(\.[A-Za-z0-9_*-]+)+", "a sysctl key", "write it as vm.swappiness"),
]
SysPath = Annotated[
    str,
    Matching(
        r"(?!.*/\.\.(?:/|$))/sys/[A-Za-z0-9_./:*?\[\]-]+",
        "a path in /sys",
        "write it in full, without '..'; * ? [] match",
    ),
]
# What stands unquoted in configuration files and in patterns of the shell.
PlainPath = Annotated[
    AbsolutePath,
    Matching("/[A-Za-z0-9_./:@+,=-]*", "a plain path", "use letters, digits and / _ . : @ + , = -"),
]
Module = Annotated[
    str, Matching("[A-Za-z0-9_-]+", "a module's name", "use letters, digits, _ and -")
]
Parameter = Annotated[
    str,
    Matching(r"[A-Za-z0-9_.-]+", "a kernel parameter", "name it alone; its value stands after :"),
]
UnitName = Annotated[
    str,
    Matching(
        r"[A-Za-z0-9_.@:-]+\.(service|socket|timer|mount|swap|target)",
        "a unit name",
        "write it with its suffix, such as irqbalance.service",
    ),
]
Word = Annotated[
    str, Matching(r"[^\s\x00-\x1f\x7f\"'\\$`]+", "one plain word", "no spaces, no quotes")
]
Line = Annotated[
    str,
    Matching(
        r"[^\x00-\x1f\x7f]*[^\x00-\x1f\x7f\\]",
        "one line",
        "no line breaks, no backslash at its end",
    ),
]
FileMode = Annotated[str, Matching("0[0-7]{3}", "a file mode", 'write it in quotes: "0644"')]
Version = Annotated[str, Matching(r"[0-9]+(\.[0-9]+)*", "a version", 'write it as "580.95"')]
Owner = Annotated[str, Matching("[a-z_][a-z0-9_-]*", "a user's name", "use a-z, 0-9, _ and -")]
Percent = Annotated[str, Matching("[1-9][0-9]?%", "a share", "write it as 10%")]
Clocks = Annotated[
    str,
    Matching("[1-9][0-9]{1,4}(-[1-9][0-9]{1,4})?", "a clock range", "write MHz as 2400-2550"),
]
Watt = Annotated[int, Field(gt=0)] | Annotated[float, Field(gt=0)]
GpuNumber = Annotated[str, Matching("all|[0-9]{1,2}", "all or a GPU number", 'write "0"')]
# mig-parted's vocabulary: 1g.12gb, 1g.12gb+me, 7g.94gb.
MigProfile = Annotated[
    str, Matching(r"[1-7]g\.[1-9][0-9]{0,2}gb(\+[a-z.]+)?", "a MIG profile", "write 1g.12gb")
]
