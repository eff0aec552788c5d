"""Out of memory is one line that names the fields to reduce; other errors pass."""

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
FIELDS = ("train.batch_size (now 4)", "grid.size (", "model.width (", "model.precision=bfloat16")


def test_training_out_of_memory_names_the_fields_to_reduce(lab, reference, tmp_path):
    """A real allocation of 12 GiB, where 8 may be had."""
    process = lab.train(
        tmp_path / "run", hook=LIMIT.format(limit=2**33), model__width=512, grid__size="512,512",
        grid__spacing=1.4,
    )  # fmt: skip
    process.wait().refused("error: out of memory (", *FIELDS, "--workdir")


RAISE = """
from jax.errors import JaxRuntimeError
import jaxseg.inference.predictor
def fail(*args):
    raise JaxRuntimeError("{status}: Out of memory while trying to allocate 68719476736 bytes.")
jaxseg.inference.predictor.make_probabilities = lambda *args, **kwargs: fail
"""


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_inference_out_of_memory_names_the_fields_to_reduce(lab, reference, tmp_path, mode):
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


def test_host_memory_errors_are_reported(lab, reference, tmp_path):
    message = "out of memory (Unable to allocate 3.4 GiB for an array)"
    lab.train(tmp_path / "run", hook=HOST).wait().refused(message, *FIELDS)
    files = lab.folder / "data"
    ended = lab.start(
        "predict", f"--run={reference}", files,
        f"--output={tmp_path / 'out'}", hook=HOST,
    ).wait()  # fmt: skip
    ended.refused(message)


def memory_error_of_numpy() -> MemoryError:
    with pytest.raises(MemoryError) as caught:
        np.empty(2**50)
    return caught.value


def test_out_of_memory_errors_are_recognized():
    for error in (
        MemoryError(),
        memory_error_of_numpy(),
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes."),
        JaxRuntimeError("INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    ):
        assert is_spent(error)
        message = "out of memory.*advice"
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


def test_advice_has_the_current_values():
    values = {"batch_size": 16, "size": (128, 96), "width": 32, "depth": 4}
    text = training_advice(**values, context=False)
    for words in ("batch_size (now 16)", "grid.size (128x96)", "width (32)", "depth (4)"):
        assert words in text
    assert "model.context" not in text
    assert "model.context=False" in training_advice(**values, context=True)
    assert "8 slices of 128x96 pixels" in inference_advice(8, size=(128, 96), width=32)
