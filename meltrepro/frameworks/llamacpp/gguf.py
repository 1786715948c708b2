"""GGUF files: what is checked before anything is built from them, and the one rewrite that old releases need."""

from __future__ import annotations

from pathlib import Path

from meltrepro.errors import ModelError
from meltrepro.frameworks.llamacpp.gguf_header import scan

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"
_SHARING = frozenset({"gemma"})
"""Architectures whose output matrix is the embedding's by definition: no release looks for another."""


def check(path: Path) -> None:
    """Raise `ModelError` unless the file begins as a GGUF file of version 2 or 3 does and names at least one tensor."""
    with path.open("rb") as file:
        head = file.read(24)
    if head[:4] != b"GGUF":
        raise ModelError(
            f"{path.name[:16]} is not a GGUF file: it begins with {head[:4]!r}, expected b'GGUF'",
            hint="give a file in GGUF format; convert other formats with llama.cpp's converter first",
        )
    version = int.from_bytes(head[4:8], "little")
    if version not in (2, 3):
        raise ModelError(f"{path.name[:16]} is a GGUF file of version {version}; versions 2 and 3 are supported")
    if len(head) < 24 or int.from_bytes(head[8:16], "little") == 0:
        raise ModelError(f"{path.name[:16]} is a GGUF file without tensors, or a truncated one")


def parameters(path: Path) -> int:
    """How many weights a file holds; raises `ModelError` for a file that cannot be read."""
    import gguf

    scan(path)
    try:
        return sum(int(tensor.n_elements) for tensor in gguf.GGUFReader(path).tensors)
    except (ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{path.name[:16]} cannot be read as GGUF: {error}") from error


def untie(source: Path, destination: Path) -> bool:
    """Write a copy whose output matrix stands in the file, for releases that cannot share the embedding's.

    Returns `False`, and writes nothing, where the file has one. The same source gives the same bytes; the weights are
    the same numbers. Raises `ModelError` for a file that cannot be read.
    """
    import gguf

    scan(source)
    try:
        reader = gguf.GGUFReader(source)
        names = [tensor.name for tensor in reader.tensors]
        architecture = reader.fields[gguf.Keys.General.ARCHITECTURE].contents()
        values = {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, LookupError) as error:
        raise ModelError(
            f"{source.name[:16]} cannot be read as GGUF: {error}", hint="get the file again from where it came from"
        ) from error
    if _OUTPUT in names or _EMBEDDING not in names or architecture in _SHARING:
        return False
    writer = gguf.GGUFWriter(destination, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == gguf.Keys.General.ARCHITECTURE:
            continue  # the writer adds these itself
        inner = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, values[name], field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    embedding = reader.tensors[names.index(_EMBEDDING)]
    writer.add_tensor(_OUTPUT, embedding.data, raw_dtype=embedding.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return True
