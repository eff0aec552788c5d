"""Spent memory is one line that names what takes less; other errors pass as they are."""

import numpy as np
import pytest
from jax.errors import JaxRuntimeError

from jaxseg.machine.memory import (
    OutOfMemoryError,
    advised,
    inference_advice,
    is_spent,
    training_advice,
)

LIMIT = """
import resource
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
"""
KNOBS = ("train.batch_size (now 4)", "grid.size (", "model.width (", "model.precision=bfloat16")


def test_a_network_larger_than_the_machine_names_the_knobs_to_train(lab, reference, tmp_path):
    """A real allocation of 12 GiB, where 8 may be had."""
    process = lab.train(
        tmp_path / "run", hook=LIMIT.format(limit=2**33), model__width=512, grid__size="512,512",
        grid__spacing=1.4,
    )  # fmt: skip
    process.wait().refused("error: out of memory (", *KNOBS, "needs a --workdir of its own")


RAISE = """
from jax.errors import JaxRuntimeError
import jaxseg.inference.predictor
def fail(*args):
    raise JaxRuntimeError("{status}: Out of memory while trying to allocate 68719476736 bytes.")
jaxseg.inference.predictor.make_probabilities = lambda *args, **kwargs: fail
"""


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_inference_says_what_to_do(lab, reference, tmp_path, mode):
    """The error is XLA's own; a GPU that is full raises it."""
    flags = [mode, f"--run={reference}", f"--output={tmp_path / 'out'}"]
    if mode == "predict":
        flags.append(lab.folder / "data")
    ended = lab.start(*flags, hook=RAISE.format(status="RESOURCE_EXHAUSTED")).wait()
    ended.refused("out of memory (RESOURCE_EXHAUSTED: Out of memory while", "grid.size",
                  "JAX_PLATFORMS=cpu")  # fmt: skip


HOST = """
import jaxseg.data.nifti
def fail(*args):
    raise MemoryError("Unable to allocate 3.4 GiB for an array")
jaxseg.data.nifti._read_array = fail
"""


def test_memory_of_the_host_is_told_too(lab, reference, tmp_path):
    message = "out of memory (Unable to allocate 3.4 GiB for an array)"
    lab.train(tmp_path / "run", hook=HOST).wait().refused(message, *KNOBS)
    files = lab.folder / "data"
    ended = lab.start(
        "predict", f"--run={reference}", files,
        f"--output={tmp_path / 'out'}", hook=HOST,
    ).wait()  # fmt: skip
    ended.refused(message)


def test_which_errors_tell_of_spent_memory():
    for error in (
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((2**50,), np.dtype(float)),
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
        JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ):
        assert is_spent(error)
        message = r"^out of memory \(.*\); advice$"
        with pytest.raises(OutOfMemoryError, match=message), advised("advice"):
            raise error
    for error in (
        JaxRuntimeError("INTERNAL: something else"),
        ValueError("out of memory"),
        RuntimeError("RESOURCE_EXHAUSTED"),
        KeyError("x"),
    ):
        assert not is_spent(error)
        with pytest.raises(type(error)) as caught, advised("advice"):
            raise error
        assert caught.value is error


def test_advice_gives_the_present_values():
    text = training_advice(batch_size=16, size=(128, 96), width=32, depth=4)
    for words in ("batch_size (now 16)", "grid.size (128x96)", "width (32)", "depth (4)"):
        assert words in text
    assert "8 slices of 128x96 pixels" in inference_advice(8, size=(128, 96), width=32)
