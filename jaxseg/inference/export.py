"""Export of a trained network as a bundle that predicts and evaluates without the run's data."""

import json
import logging
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.config.settings import SettingsError, without_places
from jaxseg.inference import case_decision
from jaxseg.models.onnx_graph import onnx_probabilities
from jaxseg.models.segment import export_probabilities
from jaxseg.reports import model_card
from jaxseg.reports.preprocessing_note import preprocessing_note
from jaxseg.runs import bundle, provenance
from jaxseg.runs.bundle import Manifest
from jaxseg.runs.config_file import SETTINGS
from jaxseg.runs.data_file import DATA
from jaxseg.runs.files import WorkdirError, check_writable, read_json, writing
from jaxseg.runs.lock import InUseError, locked
from jaxseg.runs.params import save_params
from jaxseg.runs.signals import unwind_on_sigterm
from jaxseg.runs.trained import Trained, check_data, load_run, read_config

_LOG = logging.getLogger(__name__)


def export(
    folder: Path,
    output: Path,
    *,
    checkpoint: str | None = None,
    onnx: bool = False,
    compact: bool = False,
    overwrite: bool = False,
) -> None:
    """Write a bundle: parameters, config, preprocessing, StableHLO artifact and model card.

    The bundle is built in a temporary folder and moved into place at the end, so `output` is either
    complete or missing. An error, Ctrl-C or SIGTERM leaves nothing behind. SIGKILL leaves a hidden
    folder `.tmp-NAME-...` and its lock file, which the next export to the same place removes.

    Args:
      folder: run folder, or a bundle to export in another form; it is not modified. The model
        card of a bundle, which may be edited, and its license are kept.
      output: folder to create, with its parents.
      checkpoint: "best" or "last"; the default is as in `load_run`.
      onnx: whether to write the networks as ONNX as well, which needs the package onnx.
      compact: whether to store the parameters in half precision and leave out the StableHLO
        artifact, which makes the bundle a quarter as large.
      overwrite: whether to replace an existing bundle; nothing else is ever replaced.

    Raises:
      WorkdirError: if there is no run or no such checkpoint, or if the output exists or cannot be
        written.
      SettingsError: if the config does not describe a run, or onnx is not installed.
      DeviceError: as in `load_run`.
    """
    if onnx and find_spec("onnx") is None:
        raise SettingsError("--onnx: needs onnx; expected it installed: pip install onnx")
    target = output.resolve()  # a link to a bundle remains a link
    if bundle.is_bundle(folder) and target.is_relative_to(folder.resolve()):
        raise WorkdirError(f"{output}: inside {folder}; expected a folder outside of the bundle")
    try:
        _check_output(output, target, overwrite)
    except OSError as error:
        raise WorkdirError(f"{output}: cannot be read ({error.strerror})") from error
    run = load_run(folder, checkpoint=checkpoint)
    check_data(run.folder, run.data)
    card, edited = folder / bundle.CARD, None
    if bundle.is_bundle(folder):
        scores, remarks = {}, ("The scores are those of the bundle that this was exported from.",)
        edited = _read(card) if card.exists() else None
    else:
        scores, remarks = _scores(run)
    with writing(output), unwind_on_sigterm(), _in_one_move(target, overwrite) as temporary:
        size = _write(run, temporary, scores, remarks, edited, onnx=onnx, compact=compact)
    _LOG.info(
        f"{output}: {run.setup.name}, {run.checkpoint} checkpoint, step {run.step}; "
        f"{size / 1e6:.1f} MB. Read its {bundle.CARD} before you pass it on."
    )
    if run.data.get("synthetic"):
        _LOG.info(f"{output}: trained on synthetic cases; of no use on real images")
    if model_card.is_own_data(run.setup.source, run.data):
        _LOG.info(
            f"{output}: {DATA} names the cases, and {bundle.CARD} lacks their source and license"
        )


def _check_output(output: Path, target: Path, overwrite: bool) -> None:
    """Reject, before any work is done, an output that would fail or destroy other files."""
    check_writable(target.parent)
    if not target.exists():
        return
    if not overwrite:
        raise WorkdirError(f"{output}: exists already; pass --overwrite to replace a bundle")
    if not target.is_dir():
        raise WorkdirError(f"{output}: a file; only a bundle is replaced")
    if not any(target.iterdir()):
        return
    try:
        manifest = bundle.read_manifest(target)
    except WorkdirError as error:
        raise WorkdirError(f"{output}: no bundle, so it is not replaced ({error})") from error
    ours = {*manifest.files, bundle.MANIFEST, bundle.CARD}
    paths = [path for path in sorted(target.rglob("*")) if path.is_symlink() or not path.is_dir()]
    for path in paths:
        if path.relative_to(target).as_posix() not in ours:
            raise WorkdirError(
                f"{path}: no part of the bundle that would be replaced; move it away"
            )


@contextmanager
def _in_one_move(target: Path, overwrite: bool) -> Iterator[Path]:
    """Create a folder that becomes `target` once it is complete, and is removed on an error.

    Yields:
      The empty folder to fill, on the same file system.
    """
    nearest = next(path for path in target.parents if path.exists())
    _remove_abandoned(nearest, target)
    token = secrets.token_hex(4)
    temporary = nearest / f".tmp-{target.name}-{token}"
    # An export that looks for abandoned folders may hold the lock for a moment.
    with locked(nearest, name=_lock_name(target, token), wait=True, keep=False):
        try:
            temporary.mkdir()
            yield temporary
            target.parent.mkdir(parents=True, exist_ok=True)
            if overwrite and target.exists():
                _replace(target, temporary)
            else:  # fails if another process has created it
                temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _lock_name(target: Path, token: str) -> str:
    """Return the name of a temporary folder's lock, a file beside it, as the folder moves."""
    return f".lock-{target.name}-{token}"


def _remove_abandoned(folder: Path, target: Path) -> None:
    """Remove the temporary folders and lock files of killed exports, which hold no lock anymore.

    A replaced bundle is kept if `target` does not exist.
    """
    pattern = rf"\.(?:tmp|lock)-{re.escape(target.name)}-([0-9a-f]{{8}})(-replaced)?"
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, path.name)
        if not match or path.is_symlink() or (match[2] and not target.exists()):
            continue
        name = _lock_name(target, match[1])
        with suppress(InUseError), locked(folder, name=name, keep=False):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)


def _replace(target: Path, temporary: Path) -> None:
    """Replace `target` in two moves, as two folders cannot be swapped in one.

    If the process is killed between them, the old bundle remains beside it under a hidden name.
    """
    old = temporary.with_name(f"{temporary.name}-replaced")
    target.rename(old)
    try:
        temporary.rename(target)
    except BaseException:
        old.rename(target)
        raise
    # The new bundle is in place; a failure to remove the old one leaves only a hidden folder.
    shutil.rmtree(old, ignore_errors=True)


def _write(
    run: Trained,
    folder: Path,
    scores: dict[str, str],
    remarks: tuple[str, ...],
    edited: str | None,
    *,
    onnx: bool,
    compact: bool,
) -> int:
    """Write the files of a bundle; `edited` is the model card of the bundle that it is made from.

    Returns:
      Their total size in bytes, without the model card and the manifest.
    """
    _write_description(run, folder)
    calling_convention = _write_networks(run, folder, onnx=onnx, compact=compact)
    files, versions = bundle.list_files(folder), provenance.versions()
    manifest = Manifest(run.setup.name, run.checkpoint, run.step, versions, files)
    bundle.write_manifest(folder, manifest)
    facts = model_card.Facts(
        run=run,
        scores=scores,
        remarks=remarks,
        calling_convention=calling_convention,
        made_with=versions,
        files={name: (file.size, file.sha256) for name, file in files.items()},
    )
    (folder / bundle.CARD).write_text(model_card.model_card(facts, edited), encoding="utf-8")
    return sum(file.size for file in files.values())


def _write_description(run: Trained, folder: Path) -> None:
    """Write the config, the data, their provenance, the case decision and the preprocessing."""
    _write_json(folder / SETTINGS, without_places(read_config(run.folder)))
    _write_json(folder / DATA, provenance.without_places(run.data))
    if sittings := provenance.read(run.folder):
        _write_json(folder / provenance.FILE, provenance.public(sittings))
    for name in (case_decision.FILE, bundle.LICENSE):
        if (run.folder / name).exists():
            shutil.copy(run.folder / name, folder / name)
    note = preprocessing_note(
        run.setup.preprocessing,
        run.anatomy,
        spacing=run.data.get("spacing"),
        orientation=run.data.get("orientations", [None])[0],
    )
    _write_json(folder / bundle.PREPROCESSING, note)


def _write_networks(run: Trained, folder: Path, *, onnx: bool, compact: bool) -> int | None:
    """Write the parameters and the artifacts.

    Returns:
      Calling convention version of the StableHLO artifacts; None for a compact bundle.
    """
    precision = np.float16 if compact else np.float32
    files = bundle.PARAMS, bundle.ARTIFACT, bundle.ONNX
    parts: list[Any] = [(run.network, run.params, run.grid.size, files)]
    if run.localizer is not None:
        files = bundle.LOCALIZER_PARAMS, bundle.LOCALIZER_ARTIFACT, bundle.LOCALIZER_ONNX
        parts.append((run.localizer, run.localizer_params, None, files))
    calling_convention = None
    for network, params, size, (params_file, artifact, onnx_file) in parts:
        try:
            save_params(folder / params_file, params, precision)
        except ValueError as error:  # raised by Orbax, for example on a full disk
            raise OSError(0, (str(error) or type(error).__name__).splitlines()[0]) from error
        if not compact:
            exported = export_probabilities(network, params, size)
            (folder / artifact).write_bytes(exported.serialize())
            calling_convention = exported.calling_convention_version
        if onnx:
            (folder / onnx_file).write_bytes(onnx_probabilities(network, params, size))
    return calling_convention


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _scores(run: Trained) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the reports on this checkpoint by heading, and sentences on those that are missing."""
    reports, remarks = {}, []
    table, evaluation = run.folder / "table.md", run.folder / "evaluation"
    if table.exists():
        reports["At the end of training, on the network grid"] = _read(table)
    else:
        remarks.append("The run had not ended when this was exported: it has no table of scores.")
    if (evaluation / "summary.json").exists():
        scored = _scored_checkpoint(evaluation / "summary.json")
        if scored.endswith(f"step {run.step}"):
            reports["On the native grid"] = _read(evaluation / "summary.md")
        else:
            remarks.append(
                f"The run's evaluation is of another checkpoint ({scored}) and is not shown."
            )
    else:
        remarks.append("The run was not evaluated on the native grid (`jaxseg evaluate`).")
    return reports, tuple(remarks)


def _scored_checkpoint(path: Path) -> str:
    try:
        return str(read_json(path)["checkpoint"])
    except (WorkdirError, KeyError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise WorkdirError(f"{path}: cannot be read ({reason}); evaluate anew") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: cannot be read ({error})") from error
