"""In which form a source brings a model, as far as its name tells; pure."""

from __future__ import annotations

from pathlib import PurePosixPath

from inferfleet.models.need import Source
from inferfleet.models.needs import single_file

# What messages call a form.
WORDS = {
    "directory": "a directory of model files",
    "gguf": "one GGUF file",
    "ollama": "a model of Ollama's own store",
    "file": "a file of another kind",
}
_OTHER_FILES = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".zip", ".json")


def forms(source: Source) -> frozenset[str]:
    """What the source may be: one of WORDS, or several where its name does not tell."""
    if source.scheme == "ollama":
        return frozenset({"ollama"})
    name = source.member or source.name
    suffix = PurePosixPath(name).suffix.lower()
    if suffix == ".gguf" and not name.endswith("/"):
        return frozenset({"gguf"})
    if suffix in _OTHER_FILES and (source.scheme == "path" or single_file(source)):
        return frozenset({"file"})
    if source.scheme == "path":
        return frozenset({"directory", "gguf"})
    return frozenset({"gguf"}) if single_file(source) else frozenset({"directory"})
