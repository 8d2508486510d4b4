"""One value into the syntax of its destination, such that its real parser returns that value.

Each function raises FleetError for the few values that a destination cannot hold at all.
"""

from __future__ import annotations

import json
import re

from inferfleet.errors import USAGE, FleetError

# Quotes, backslashes, and what is not printable or breaks a line in YAML 1.1 or 1.2. Not written
# as the complement of what is, because that far larger set takes 5 ms to compile.
_YAML_ESCAPED = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]')
_YAML_NAMED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_SYSTEMD_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./-]+")
_NGINX_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./?;\[\] ~-]*")
_SYSTEMD_ESCAPED = re.compile(r'["\\%\x01-\x1f\x7f]')
_SYSTEMD_NAMED = {'"': '\\"', "\\": "\\\\", "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_CONTROL = re.compile(r"[\x01-\x08\x0b-\x1f\x7f-\x9f]")
_ENV_FILE = re.compile(r'["\\$\n\r]')
_ENV_FILE_NAMED = {'"': '\\"', "\\": "\\\\", "$": "\\$", "\n": "\\n", "\r": "\\r"}
_MODELFILE_END = re.compile(r'"""\s*[\r\n]')


def _yaml_char(match: re.Match[str]) -> str:
    char = match[0]
    if named := _YAML_NAMED.get(char):
        return named
    code = ord(char)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def yaml_string(text: str) -> str:
    """A YAML double-quoted scalar on one line; JSON's escapes differ above U+FFFF."""
    return f'"{_YAML_ESCAPED.sub(_yaml_char, text)}"'


def yaml_value(value: object) -> str:
    """Text, numbers, booleans, null, lists and mappings as one line of YAML flow style."""
    if isinstance(value, str):
        return yaml_string(value)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return json.dumps(value)
    if isinstance(value, dict):
        pairs = (f"{yaml_value(key)}: {yaml_value(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(yaml_value(item) for item in value) + "]"
    raise TypeError(f"no YAML form of {type(value).__name__}")


def compose_value(value: object) -> str:
    """As yaml_value; $ doubled, because docker compose interpolates every value."""
    return yaml_value(value).replace("$", "$$")


def systemd_word(text: str) -> str:
    """One word of a unit setting that splits words; with ExecStart=: no $ is expanded."""
    if _SYSTEMD_PLAIN.fullmatch(text):
        return text
    return f'"{_SYSTEMD_ESCAPED.sub(_systemd_char, text)}"'


def systemd_mount(source: str, target: str) -> str:
    """SOURCE:TARGET of BindPaths=, which knows no escapes but a backslash before the character."""
    for path in (source, target):
        if not path.startswith("/") or _CONTROL.search(path) or re.search(r"[\n\t]", path):
            raise FleetError(
                f"{path!r} cannot be mounted by systemd",
                "name a directory by its absolute path, without control characters",
                code=USAGE,
            )
    return ":".join(f'"{_SYSTEMD_ESCAPED.sub(_systemd_char, path)}"' for path in (source, target))


def _systemd_char(match: re.Match[str]) -> str:
    return _SYSTEMD_NAMED.get(match[0]) or f"\\x{ord(match[0]):02x}"


def systemd_environment(name: str, value: str) -> str:
    """One NAME=VALUE word of Environment=; systemd drops values with control characters."""
    if _CONTROL.search(value):
        raise FleetError(
            f"the value of {name} has a control character, which systemd refuses in a variable",
            "remove it, or run the service with compose or process",
            code=USAGE,
        )
    return systemd_word(f"{name}={value}")


def systemd_path(path: str) -> str:
    """A path for settings that take the rest of the line, such as LoadCredential=."""
    return path.replace("%", "%%")


def env_file(name: str, value: str) -> str:
    """One line of an env file of docker compose, which drops a leading line break."""
    if value.startswith("\n"):
        raise FleetError(
            f"the value of {name} begins with a line break, which compose's env files cannot hold",
            "remove the empty first line of the secret",
            code=USAGE,
        )
    return f'{name}="{_ENV_FILE.sub(lambda match: _ENV_FILE_NAMED[match[0]], value)}"\n'


def sh_env(name: str, value: str) -> str:
    """One line of process/NAME/env, read back by the run script with printf %b."""
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n")
    return f"{name}={escaped}\n"


def nginx_value(text: str) -> str:
    """One word of nginx's configuration, in quotes; not for what nginx would read as more."""
    if not _NGINX_PLAIN.fullmatch(text):
        raise FleetError(
            f"{text!r} cannot stand in nginx's configuration",
            "use a path of letters, digits and / _ . : @ + , = - ? ; [ ]",
            code=USAGE,
        )
    return f'"{text}"'


def modelfile_value(value: object) -> str:
    """A value of an Ollama Modelfile; its parser has no escapes and drops unprintable text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return str(value)
    if _MODELFILE_END.search(value):
        raise FleetError(
            'a Modelfile cannot hold a line that ends with """', "reword that line", code=USAGE
        )
    for char in value:
        if not char.isprintable() and char not in "\n\r\t":
            raise FleetError(
                f"Ollama drops the character U+{ord(char):04X} from a Modelfile",
                "replace it, by a plain space for instance",
                code=USAGE,
            )
    return f'"""{value}"""'
