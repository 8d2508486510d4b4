"""A look at a real machine: what sh, grep and stat answer, read again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferfleet.errors import FleetError
from inferfleet.hostprep.facts import (
    Answer,
    Facts,
    Look,
    join,
    literal,
    look_script,
    matches,
    parse_facts,
)

SHELLS = [["dash"], ["bash", "--posix"]]


def look(*paths: str, sh: list[str] | None = None, prefix: str = "", **probes: list[str]) -> Facts:
    """Ask this machine. prefix: what stands in front of sh, such as another user."""
    asked = Look(paths, {name: tuple(argv) for name, argv in probes.items()})
    return parse_facts(_answer(asked, sh or ["sh"], prefix))


def _answer(asked: Look, sh: list[str], prefix: str = "") -> str:
    command = [*prefix.split(), *sh, "-c", look_script(asked)]
    done = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert done.stderr == b""
    return done.stdout.decode("utf-8", "replace")


@pytest.fixture(params=SHELLS, ids=["dash", "bash"])
def sh(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param
    return found


def test_patterns_find_files_and_each_of_them_once(tmp_path: Path, sh: list[str]) -> None:
    for name in ("a.conf", "b.conf", "c.txt"):
        (tmp_path / name).write_text(f"this is {name}\n")
    (tmp_path / "d.conf").mkdir()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "e.conf").write_text("deep\n")
    at = str(tmp_path)
    facts = look(f"{at}/*.conf", f"{at}/a.*", f"{at}/[bc].*", f"{at}/b.conf", f"{at}/no*", sh=sh)
    assert facts.files == {f"{at}/{n}": f"this is {n}\n" for n in ("a.conf", "b.conf", "c.txt")}
    assert list(facts.matching(f"{at}/*.conf")) == [f"{at}/a.conf", f"{at}/b.conf"]
    assert list(facts.matching(f"{at}/?.txt")) == [f"{at}/c.txt"]
    assert facts.text(f"{at}/d.conf") is None
    assert facts.closed == frozenset()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", ""),
        (b"\n", "\n"),
        (b"\n\n\n", "\n\n\n"),
        (b"no line end", "no line end\n"),
        (b"two\nlines", "two\nlines\n"),
        (b"carriage\r\nreturn\r\n", "carriage\r\nreturn\r\n"),
        (b"tab\tand : colon\n", "tab\tand : colon\n"),
        (b"nul\0in\0side\n", "nul\0in\0side\n"),
        (b"\x01start\n\x020\n\x03\n", "\x01start\n\x020\n\x03\n"),
        (b"there\t/etc/passwd\nclosed\t/etc/shadow\nend\n",
         "there\t/etc/passwd\nclosed\t/etc/shadow\nend\n"),
        (b"bad \xff byte\n", "bad \ufffd byte\n"),
        (b"-e\n-n\n\\n\n", "-e\n-n\n\\n\n"),
    ],
)  # fmt: skip
def test_any_text_comes_back(content: bytes, text: str, tmp_path: Path, sh: list[str]) -> None:
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "next").write_text("other\n")
    facts = look(f"{tmp_path}/file", f"{tmp_path}/next", sh=sh)
    assert facts.files == {f"{tmp_path}/file": text, f"{tmp_path}/next": "other\n"}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=12))
def test_any_texts_come_back(texts: list[str]) -> None:
    with TemporaryDirectory() as folder:
        wanted = {}
        for number, text in enumerate(texts):
            path = Path(folder, f"{number}")
            path.write_bytes(text.encode())
            wanted[str(path)] = text if text.endswith("\n") or not text else f"{text}\n"
        assert look(f"{folder}/*").files == wanted


NAMES = ["a b", "it's", 'say "x"', "$(touch x)", "`id`", "back\\slash", "-n", "a;b", "%s", "a|b",
         "*", "[x]", "wei\u00dft", "~", "#", "a&b", "(a)", "{a,b}", "a=b"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_data(name: str, tmp_path: Path, sh: list[str]) -> None:
    (tmp_path / name).write_text("its text\n")
    (tmp_path / "xother").write_text("other\n")
    path = f"{tmp_path}/{name}"
    asked = Look((literal(path),), stats=(path,))
    facts = parse_facts(_answer(asked, sh))
    assert facts.files == {path: "its text\n"}
    assert matches(path, literal(path))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("pattern", ["relative", "/line\nbreak", "/tab\t", "", "/nul\0"])
def test_no_path(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a path pattern"):
        look_script(Look((pattern,)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_closed_files(tmp_path: Path, sh: list[str]) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o055 != 0o055:
            parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "secret").write_text("x\n")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "open").write_text("y\n")
    facts = look(f"{tmp_path}/*", sh=sh, prefix="setpriv --reuid 65534 --clear-groups")
    assert facts.files == {f"{tmp_path}/open": "y\n"}
    assert facts.closed == {f"{tmp_path}/secret"}


# Opens for root and cannot be read: the kernel gives it no read permission.
WRITE_ONLY = "/proc/sys/net/ipv4/route/flush"


@pytest.mark.skipif(not os.path.exists(WRITE_ONLY), reason="no such key here")
def test_what_can_only_be_written_is_closed(sh: list[str]) -> None:
    facts = look(WRITE_ONLY, "/proc/sys/kernel/ostype", "/proc/self/mem", sh=sh)
    assert facts.closed == {WRITE_ONLY, "/proc/self/mem"}
    assert facts.files == {"/proc/sys/kernel/ostype": "Linux\n"}


def test_a_file_that_goes_in_between_is_absent() -> None:
    answer = "there\t/etc/x\ngrep: /etc/x: No such file or directory\n\x03\n"
    assert parse_facts(answer) == Facts({"/etc/x": ""})


def test_a_read_error_in_the_middle_keeps_what_was_read() -> None:
    facts = parse_facts("there\t/a: b\n/a: b\0one\ngrep: /a: b: Input/output error\n\x03\n")
    assert facts.files == {"/a: b": "one\n"}


def test_a_link_to_dev_null_is_an_empty_file(tmp_path: Path, sh: list[str]) -> None:
    """So systemd's files are masked."""
    (tmp_path / "masked").symlink_to("/dev/null")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x\n")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    facts = look(f"{tmp_path}/*", sh=sh)
    assert facts.files == {
        f"{tmp_path}/file": "x\n", f"{tmp_path}/link": "x\n", f"{tmp_path}/masked": "",
    }  # fmt: skip


PROBES: list[tuple[list[str], Answer]] = [
    (["echo", "hello", "big world", "it's"], Answer(0, "hello big world it's")),
    (["printf", "no line end"], Answer(0, "no line end")),
    (["true"], Answer(0, "")),
    (["false"], Answer(1, "")),
    (["inferbase-no-such-program"], Answer(None, "")),
    (["sh", "-c", "echo out; echo err >&2; exit 3"], Answer(3, "out\nerr")),
    (["cat"], Answer(0, "")),  # standard input is empty
    (["printf", "a\\n\\n"], Answer(0, "a\n")),
    (["printf", "end\\nthere\\t/x\\n\\001other\\n/x\\0text\\n"],
     Answer(0, "end\nthere\t/x\n\x01other\n/x\0text")),
    (["echo", "\x02notanumber"], Answer(0, "\x02notanumber")),
    (["sh", "-c", "kill -9 $$"], Answer(137, "")),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "answer"), PROBES)
def test_probes(argv: list[str], answer: Answer, sh: list[str]) -> None:
    facts = look(sh=sh, asked=argv, last=["echo", "last"])
    if answer.exit == 137:  # some shells say so on standard error, which is the answer's, too
        assert facts.probe("asked").exit == 137
    else:
        assert facts.probe("asked") == answer
    assert facts.probe("last") == Answer(0, "last")
    assert facts.probe("asked").good == (answer.exit == 0)
    assert facts.files == {}


def test_a_probe_that_nobody_asked_is_absent() -> None:
    assert look().probe("x") == Answer(None, "")


def test_stats(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0o4640)
    (tmp_path / "link").symlink_to("file")
    at = str(tmp_path)
    asked = Look(stats=(at, f"{at}/file", f"{at}/link", f"{at}/none", "/dev/null"))
    stats = parse_facts(_answer(asked, ["sh"])).stats
    owner = subprocess.check_output(["stat", "-c", "%U %G %d", at], text=True).split()
    assert sorted(stats) == sorted([at, f"{at}/file", f"{at}/link", "/dev/null"])
    assert stats[at].kind == "directory"
    assert (stats[f"{at}/file"].kind, stats[f"{at}/file"].mode) == ("regular file", "4640")
    assert [stats[at].owner, stats[at].group, stats[at].device] == owner
    assert stats[f"{at}/link"].kind == "symbolic link"
    assert stats["/dev/null"].kind == "character special file"


def test_a_look_needs_two_programs(tmp_path: Path) -> None:
    """Each costs a millisecond or more on every machine, however many files are asked."""
    (tmp_path / "bin").mkdir()
    for name in ("grep", "stat"):
        program = tmp_path / "bin" / name
        real = subprocess.check_output(["which", name], text=True).strip()
        program.write_text(f'#!/bin/sh\necho {name} >>{tmp_path}/log\nexec {real} "$@"\n')
        program.chmod(0o755)
    for number in range(60):
        (tmp_path / f"file{number}").write_text("x\n")
    asked = Look((f"{tmp_path}/file*",), stats=(str(tmp_path),))
    done = subprocess.run(
        ["/bin/sh", "-c", look_script(asked).replace("/usr/local/sbin:/usr/sbin:/sbin", "/no")],
        env={"PATH": f"{tmp_path}/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(parse_facts(done.stdout).files) == 60
    assert (tmp_path / "log").read_text().split() == ["grep", "stat"]


@pytest.mark.parametrize("cut", ["", "\x01probe\nhalf", "there\t/x\n", "end\n", "\x01p\n\x03\n"])
def test_half_an_answer_is_an_error(cut: str) -> None:
    with pytest.raises(FleetError, match="cut short"):
        parse_facts(cut)


def _prefixes(text: str) -> Iterator[str]:
    yield from (text[:length] for length in range(len(text) - 1))


def test_no_part_of_an_answer_is_taken_for_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("end\n\x03\n")
    asked = Look((f"{tmp_path}/file",), {"p": ("printf", "end\\n")}, (str(tmp_path),))
    whole = _answer(asked, ["sh"])
    assert parse_facts(whole).probe("p") == Answer(0, "end")
    for part in _prefixes(whole):
        with pytest.raises(FleetError, match="cut short"):
            parse_facts(part)


def test_join() -> None:
    one = Look(("/a", "/b"), {"p": ("x",)}, ("/s",))
    two = Look(("/b", "/c"), {"p": ("x",), "q": ("y", "z")}, ("/s", "/t"))
    assert join([one, two]) == Look(
        ("/a", "/b", "/c"), {"p": ("x",), "q": ("y", "z")}, ("/s", "/t")
    )
    with pytest.raises(ValueError, match="two probes are called p"):
        join([one, Look(probes={"p": ("other",)})])


@pytest.mark.parametrize(
    ("path", "pattern", "answer"),
    [
        ("/a/b", "/a/b", True),
        ("/a/b", "/a/*", True),
        ("/a/b/c", "/a/*", False),
        ("/a/b/c", "/a/*/c", True),
        ("/a/cpu12", "/a/cpu[0-9]*", True),
        ("/a/cpufreq", "/a/cpu[0-9]*", False),
        ("/a/x", "/a/?", True),
        ("/a/A", "/a/a", False),
        ("/a", "/a/*", False),
    ],
)
def test_matches(path: str, pattern: str, answer: bool) -> None:
    assert matches(path, pattern) is answer
