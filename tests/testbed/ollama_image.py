"""An image for the Ollama of the tests: testbed.ollama_server as /bin/ollama, with Python for it.

Run as `python3 -m testbed.ollama_image` to build it and print its tag.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from testbed import debian
from testbed.images import exists, import_root, recipe_hash
from testbed.shell import alone, cache_dir, run

SUITE = "bookworm"
PACKAGES = ["libpython3.11-stdlib", "python3.11-minimal"]
_HERE = Path(__file__).parent
_MODULES = [_HERE / f"ollama_{part}.py" for part in ("api", "server", "store", "talk")]
_PROGRAM = """#!/usr/bin/python3.11
import sys
sys.path.insert(0, "/usr/lib/inferbase-test")
from testbed.ollama_server import main
sys.exit(main(sys.argv[1:]))
"""
_REVISION = "1"


def image() -> str:
    """The tag of the image, built when its recipe has changed."""
    tag = f"inferbase-test/ollama:{recipe_hash(SUITE, *PACKAGES, *_MODULES, _PROGRAM, _REVISION)}"
    with alone("ollama-image"):
        if not exists(tag):
            with tempfile.TemporaryDirectory(dir=cache_dir()) as folder:
                _build(Path(folder), tag)
    return tag


def _build(work: Path, tag: str) -> None:
    root = work / "root"
    debian.unpack(debian.download(SUITE, PACKAGES, work), root)
    for folder in ("data", "models", "tmp", "proc", "sys", "dev", "etc"):
        (root / folder).mkdir(exist_ok=True)
    modules = root / "usr/lib/inferbase-test/testbed"
    modules.mkdir(parents=True)
    for module in _MODULES:
        shutil.copyfile(module, modules / module.name)
    program = root / "bin/ollama"
    program.write_text(_PROGRAM)
    program.chmod(0o755)
    for folder in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / folder, ignore_errors=True)
    run("ldconfig", "-r", root)
    changes = ['ENTRYPOINT ["/bin/ollama"]', 'CMD ["serve"]', "EXPOSE 11434"]
    import_root(root, tag, *changes, "ENV PATH=/usr/bin:/bin", "ENV OLLAMA_HOST=0.0.0.0:11434")


if __name__ == "__main__":
    print(image())
