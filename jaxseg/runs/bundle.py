"""The folder of an exported network: its files, its manifest and the detection of damage.

`manifest.json` states the format, and the size and SHA-256 of every file that predictions depend
on, so that an incomplete, mixed-up or edited bundle is rejected. The model card may be edited, so
it is not in the manifest; neither are the files that `evaluate` adds.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from jaxseg.runs.files import WorkdirError, read_json

MANIFEST = "manifest.json"
CARD = "MODEL_CARD.md"
PARAMS = "params"
ARTIFACT = "model.stablehlo"
ONNX = "model.onnx"
LOCALIZER_PARAMS = "localizer"
LOCALIZER_ARTIFACT = "localizer.stablehlo"
LOCALIZER_ONNX = "localizer.onnx"
LICENSE = "LICENSE"
PREPROCESSING = "preprocessing.json"

_FORMAT = "jaxseg bundle"
_VERSION = 1
_FIELDS = {"name": str, "checkpoint": str, "step": int, "made_with": dict}


@dataclass(frozen=True)
class File:
    """Size and digest of an exported file.

    Attributes:
      size: size in bytes.
      sha256: digest of the content, hexadecimal.
    """

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of a bundle's manifest.

    Attributes:
      name: name of the stage.
      checkpoint: checkpoint of the run, "best" or "last".
      step: number of optimizer steps of the checkpoint.
      made_with: versions by package.
      files: files by path in the bundle, with forward slashes.
    """

    name: str
    checkpoint: str
    step: int
    made_with: Mapping[str, str]
    files: Mapping[str, File]


def is_bundle(folder: Path) -> bool:
    """Return whether a folder is a bundle, possibly damaged; a run folder has neither entry."""
    return (folder / MANIFEST).exists() or (folder / PARAMS).exists()


def list_files(folder: Path) -> dict[str, File]:
    """List all files in a folder, recursively, by path."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {name: _file(path) for name, path in sorted(paths.items()) if path.is_file()}


def _file(path: Path) -> File:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return File(path.stat().st_size, digest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`."""
    content = {"format": _FORMAT, "version": _VERSION, **asdict(manifest)}
    (folder / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json`, without the files that it names.

    Raises:
      WorkdirError: if the manifest is missing, cannot be read, has another format or version, or
        names a file outside the folder.
    """
    path = folder / MANIFEST
    content = read_json(path, missing="a damaged bundle")
    if content.get("format") != _FORMAT:
        raise WorkdirError(f"{path}: not the manifest of a jaxseg bundle")
    if content.get("version") != _VERSION:
        raise WorkdirError(
            f"{path}: a bundle of version {content.get('version')!r}; expected {_VERSION}, "
            "the one that this jaxseg reads"
        )
    try:
        files = {name: File(**entry) for name, entry in content["files"].items()}
        fields = {name: content[name] for name in _FIELDS}
    except (KeyError, TypeError, AttributeError) as error:
        raise WorkdirError(f"{path}: a damaged manifest ({error})") from error
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise WorkdirError(f"{path}: a damaged manifest ({name} is {fields[name]!r:.80})")
    for name in files:
        if not _is_inside(name):
            raise WorkdirError(f"{path}: names {name!r:.80}, which is not a file in the bundle")
    return Manifest(**fields, files=files)


def _is_inside(name: str) -> bool:
    """Return whether a path with forward slashes stays in its folder on every system."""
    parts = PurePosixPath(name).parts
    plain = "/".join(parts) == name and name.isprintable() and not set(name) & set("\\:")
    return plain and bool(parts) and ".." not in parts and parts[0] != "/"


def verify(folder: Path, manifest: Manifest) -> None:
    """Check that every file is as it was exported.

    Raises:
      WorkdirError: if a file is missing or differs.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise WorkdirError(f"{path}: a link that leads out of the bundle")
        try:
            found = _file(path)
        except FileNotFoundError:
            raise WorkdirError(f"{folder}: a damaged bundle (it has no {name})") from None
        except OSError as error:
            raise WorkdirError(f"{path}: cannot be read ({error.strerror})") from error
        if found.size != expected.size:
            raise WorkdirError(
                f"{path}: damaged ({found.size} bytes, exported with {expected.size}); "
                "copy or export the bundle again"
            )
        if found != expected:
            raise WorkdirError(
                f"{path}: damaged (its SHA-256 is not that in {MANIFEST}); "
                "copy or export the bundle again"
            )
