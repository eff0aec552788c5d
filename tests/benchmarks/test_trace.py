"""Traces in Chrome's format, as profilers write them, reduced by kind."""

import pytest

from benchmarks.trace import kind, operations


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32", "convolution"),
        ("convolution.12", "convolution"),
        ("ampere_sgemm_128x64_nn", "matrix product"),
        ("ffi_call.7", "convolution"),
        ("convert_fusion.2", "fused elementwise"),
        ("dot.3", "matrix product"),
        ("ynn_fusion.1", "YNNPACK"),
        ("loop_add_fusion_7", "fused elementwise"),
        ("input_reduce_fusion", "reduction"),
        ("transpose_fusion.1", "copy, transpose"),
        ("MemcpyD2D", "copy, transpose"),
        ("rng-bit-generator.2", "other"),
    ],
)
def test_kinds(name: str, expected: str):
    assert kind(name) == expected


def event(name: str, pid: int, tid: int, microseconds: float, **arguments: str) -> dict:
    return {
        "ph": "X", "name": name, "pid": pid, "tid": tid, "dur": microseconds, "args": arguments,
    }  # fmt: skip


def named(what: str, name: str, pid: int, tid: int = 0) -> dict:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def test_of_a_cpu_the_operations_count():
    events = [
        named("process_name", "/host:CPU", 1),
        event("convolution.1", 1, 5, 3000, hlo_op="convolution.1"),
        event("convolution.2", 1, 6, 1000, hlo_op="convolution.2"),
        event("dot.1", 1, 5, 9000, hlo_op="dot.1"),
        event("ThreadpoolListener::Record", 1, 5, 10**6),
    ]
    assert operations(events) == {"matrix product": 9.0, "convolution": 4.0}


def test_of_a_gpu_its_streams_count():
    events = [
        named("process_name", "/device:GPU:0", 1),
        named("process_name", "/host:CPU", 2),
        named("thread_name", "Stream #13(Compute)", 1, 7),
        named("thread_name", "XLA Ops", 1, 8),
        event("cudnn_fprop", 1, 7, 500),
        event("convolution.1", 1, 8, 500, hlo_op="convolution.1"),
        event("dot.1", 2, 7, 500, hlo_op="dot.1"),
    ]
    assert operations(events) == {"convolution": 0.5}
