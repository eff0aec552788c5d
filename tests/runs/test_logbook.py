"""Metrics and curves of a run, also after it was resumed."""

import json
import math
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

from jaxseg.runs.files import WorkdirError
from jaxseg.runs.logbook import METRICS, Logbook, read_metrics


def lines(folder):
    return (folder / "metrics.jsonl").read_text().splitlines()


def events(folder: Path):
    """TensorBoard's files read by their format: length, checksum, message, checksum."""
    found = []
    for path in sorted((folder / "tensorboard").glob("events.out.tfevents.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            found.append(Event.FromString(data[at + 12 : at + 12 + length]))
            at += 12 + length + 4
    return found


def curves(folder):
    return {
        (value.tag, event.step): value.simple_value
        for event in events(folder)
        for value in event.summary.value
        if value.WhichOneof("value") == "simple_value"
    }


def write(folder, first, last):
    with Logbook(folder, step=first - 1) as book:
        for step in range(first, last + 1):
            book.scalars(step, "train", {"loss": step / 4})


def test_a_line_by_hand(tmp_path):
    with Logbook(tmp_path, step=0) as book:
        book.scalars(20, "train", {"loss": 0.5, "label_weights": {"cavity": 2, "infarct": 0.25}})
        assert len(lines(tmp_path)) == 1  # there at once, for who follows the file
    assert lines(tmp_path) == [
        '{"step": 20, "group": "train", "loss": 0.5, '
        '"label_weights/cavity": 2.0, "label_weights/infarct": 0.25}'
    ]
    assert curves(tmp_path) == {
        ("train/loss", 20): 0.5,
        ("train/label_weights/cavity", 20): 2.0,
        ("train/label_weights/infarct", 20): 0.25,
    }


def test_numpy_numbers_are_written_in_full(tmp_path):
    with Logbook(tmp_path, step=0) as book:
        values: dict[str, Any] = {"loss": np.float64(1 / 3), "epoch": np.int64(2)}
        book.scalars(1, "train", values)
    assert read_metrics(tmp_path / METRICS) == [
        {"step": 1, "group": "train", "loss": 1 / 3, "epoch": 2}
    ]


def test_non_finite_values_are_null(tmp_path):
    values = {"dsc": {"LV": 0.5, "NoR": math.nan}, "a": math.inf, "b": -math.inf}
    with Logbook(tmp_path, step=0) as book:
        book.scalars(3, "validation", values)

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    (line,) = (json.loads(text, parse_constant=refuse) for text in lines(tmp_path))
    assert line == {
        "step": 3, "group": "validation", "dsc/LV": 0.5, "dsc/NoR": None, "a": None, "b": None,
    }  # fmt: skip
    assert curves(tmp_path) == {("validation/dsc/LV", 3): 0.5}


def test_a_resumed_run_continues_after_its_step(tmp_path):
    write(tmp_path, 1, 5)
    write(tmp_path, 4, 6)  # restored at step 3: 4 and 5 are written again
    metrics = read_metrics(tmp_path / METRICS)
    assert [line["step"] for line in metrics] == [1, 2, 3, 4, 5, 6]
    assert [line["loss"] for line in metrics] == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert not list(tmp_path.glob("*.tmp"))
    # TensorBoard discards what it has from step 4 on.
    starts = [
        event.step
        for event in events(tmp_path)
        if event.WhichOneof("what") == "session_log" and event.session_log.status == 1
    ]
    assert starts[-1] == 4


def test_a_restarted_run_drops_every_line(tmp_path):
    write(tmp_path, 1, 3)
    with Logbook(tmp_path, step=0):
        pass
    assert read_metrics(tmp_path / METRICS) == []


def test_an_incomplete_last_line_is_dropped(tmp_path):
    write(tmp_path, 1, 3)
    whole = lines(tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "gro')
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2, 3]
    write(tmp_path, 4, 4)
    assert lines(tmp_path)[:3] == whole
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2, 3, 4]


def test_a_last_line_without_a_newline_is_kept(tmp_path):
    write(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().rstrip("\n"))
    write(tmp_path, 3, 3)
    assert [line["step"] for line in read_metrics(tmp_path / METRICS)] == [1, 2, 3]


@pytest.mark.parametrize(
    "bad",
    [
        "3", "null", "[]", "{}", '{"group": "train"}', '{"group": "train", "step": "3"}',
        '{"group": "train", "step": true}', '{"step": 3}', "[" * 10**5, "9" * 5000,
        '{"group": "train", "step": 3, "loss": ' + "9" * 400 + "}", '{"step": 3, "gr',
    ],
)  # fmt: skip
def test_invalid_lines_are_named(tmp_path, bad):
    write(tmp_path, 1, 2)
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write(f"{bad}\n")
    with pytest.raises(WorkdirError, match=r"metrics\.jsonl, line 3"):
        read_metrics(tmp_path / METRICS)
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(WorkdirError, match=r"metrics\.jsonl: "):
        Logbook(tmp_path, step=1)


def test_no_metrics_yet(tmp_path):
    (tmp_path / METRICS).touch()
    assert read_metrics(tmp_path / METRICS) == []
    (tmp_path / METRICS).unlink()
    with pytest.raises(WorkdirError, match=r"metrics\.jsonl: "):
        read_metrics(tmp_path / METRICS)


def test_large_files_are_not_read_into_memory(tmp_path):
    with (tmp_path / METRICS).open("wb") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(WorkdirError, match="268435456"):
        read_metrics(tmp_path / METRICS)


def test_curves_are_flushed_and_files_ordered_without_the_clock(tmp_path, monkeypatch):
    """A killed run has shown what it wrote; TensorBoard reads files by their names."""
    monkeypatch.setattr(time, "time", lambda: 2e9)
    with Logbook(tmp_path, step=0) as book:
        book.scalars(1, "train", {"loss": 0.5})
        assert curves(tmp_path) == {("train/loss", 1): 0.5}
    monkeypatch.setattr(time, "time", lambda: 1e9)
    write(tmp_path, 2, 2)
    (tmp_path / "tensorboard" / "events.out.tfevents.1795360506.host").touch()  # of tensorboardX
    write(tmp_path, 3, 3)
    names = sorted(path.name.split(".")[3] for path in (tmp_path / "tensorboard").iterdir())
    assert names == ["0000000001", "0000000002", "1795360506", "1795360507"]
    assert curves(tmp_path) == {("train/loss", 1): 0.5, ("train/loss", 2): 0.5,
                                ("train/loss", 3): 0.75}  # fmt: skip


def test_pictures_are_written_to_tensorboard(tmp_path):
    pixels = np.zeros((7, 5, 3), np.uint8)
    with Logbook(tmp_path, step=0) as book:
        book.picture(9, "validation", pixels)
    ((event, value),) = [
        (event, value) for event in events(tmp_path) for value in event.summary.value
    ]
    assert (event.step, value.tag) == (9, "validation")
    assert (value.image.height, value.image.width, value.image.colorspace) == (7, 5, 3)
    assert value.image.encoded_image_string.startswith(b"\x89PNG")
    assert not (tmp_path / "metrics.jsonl").read_text()


def test_files_are_closed_when_a_run_fails(tmp_path):
    book = Logbook(tmp_path, step=0)
    book.scalars(1, "train", {"loss": 1.0})
    with pytest.raises(RuntimeError), book:
        raise RuntimeError
    with pytest.raises(ValueError, match="closed file"):
        book.scalars(2, "train", {"loss": 1.0})
    assert curves(tmp_path) == {("train/loss", 1): 1.0}
