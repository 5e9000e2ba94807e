import re
import subprocess
from pathlib import Path

import pytest
import torch

from selmem.probe.triton_runtime import rows
from triton_runs import assert_right_in_the_interpreter, assert_right_on_the_gpu, needs_triton

CASES = Path(__file__).with_name("triton_cases.py")
# what the sm_90 compiler may leave in local memory, bytes a thread; the backward scan is faster so
# than with exponentials taken twice
STACK_LIMIT = 128


@needs_triton
def test_the_kernels_are_right_in_the_interpreter():
    assert_right_in_the_interpreter(CASES)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernels_are_right_on_the_gpu():
    assert_right_on_the_gpu(CASES)


def test_a_text_too_long_for_32_bit_offsets_is_refused():
    values = torch.empty(1, 2**21, 2**10, device="meta")
    with pytest.raises(ValueError, match="2097152 tokens is too long"):
        rows(values)
    assert rows(values[:, :-1]).shape == (1, 2**21 - 1, 2**10)


def scan_forward():
    from selmem.probe.scan_kernels import scan_forward_kernel as kernel
    from selmem.probe.triton_scan import FORWARD_TILES, TILES

    tile = FORWARD_TILES[16]
    types = dict.fromkeys(("x", "dt", "z", "y", "saved"), "*bf16")
    wide = ("a_matrix", "bc", "skip_weight", "dt_bias", "initial", "final")
    types |= dict.fromkeys(wide, "*fp32")
    types |= dict.fromkeys(("n_tokens", "n_saved", "x_text", "dt_text", "z_text"), "i32")
    constants = {"X_ROW": 1536, "DT_ROW": 1536, "Z_ROW": 3072, "CHANNELS": 1536, "N": 16}
    constants |= {"NL": tile.state_lanes, "DR": tile.channels, "SAVE": TILES[16].history}
    constants |= {"UNROLLED": tile.unrolled, "INITIAL": True, "KEEP": True}
    return kernel, types, constants, tile.registers


def scan_backward():
    from selmem.probe.scan_backward_kernels import scan_backward_kernel as kernel
    from selmem.probe.triton_scan import TILES

    tile = TILES[16]
    types = dict.fromkeys(("x", "dt", "z", "dy", "dx", "ddt", "dz", "saved"), "*bf16")
    types |= dict.fromkeys(("a_matrix", "bc", "skip_weight", "dt_bias"), "*fp32")
    types |= dict.fromkeys(("dfinal", "dinitial"), None)
    types |= dict.fromkeys(("dbc", "da_matrix", "dskip", "dbias"), "*fp32")
    types |= dict.fromkeys(("batch", "texts", "n_tokens", "n_saved"), "i32")
    types |= dict.fromkeys(("x_text", "dt_text", "z_text", "dy_text"), "i32") | {"one": "fp32"}
    constants = {"X_ROW": 1536, "DT_ROW": 1536, "Z_ROW": 3072, "DY_ROW": 1536, "CHANNELS": 1536}
    constants |= {"N": 16, "NL": tile.state_lanes, "DR": tile.channels, "HISTORY": tile.history}
    return kernel, types, constants | {"FINAL": False, "INITIAL_GRADIENT": False}, None


def convolution(name, more_types, more_constants):
    from selmem.probe import conv_kernels

    types = dict.fromkeys(("x", "window", "y", "dy", "dx"), "*bf16")
    types |= dict.fromkeys(("weight", "bias", "dweights"), "*fp32")
    types |= dict.fromkeys(("n_tokens", "x_text"), "i32") | more_types
    constants = {"X_ROW": 3072, "CHANNELS": 1536, "WIDTH": 4, "STRETCH": 64}
    constants |= {"BIAS": True, "WINDOW": True} | more_constants
    return getattr(conv_kernels, name), types, constants, None


def conv_forward():
    return convolution("conv_forward_kernel", {}, {"BD": 128, "UNROLLED": 8})


def conv_backward():
    types = dict.fromkeys(("batch", "texts", "dy_text"), "i32") | {"dwindow": None}
    constants = {"BD": 128, "UNROLLED": 4, "DY_ROW": 1536, "WINDOW_GRADIENT": False}
    return convolution("conv_backward_kernel", types, constants)


def norm_forward():
    from selmem.probe.norm_kernels import add_norm_forward_kernel as kernel

    types = dict.fromkeys(("mixed", "normed"), "*bf16")
    types |= dict.fromkeys(("residual", "weight", "total", "scale"), "*fp32") | {"eps": "fp32"}
    return kernel, types, {"HIDDEN": 768, "BLOCK": 1024, "num_warps": 4}, None


def norm_backward():
    from selmem.probe.norm_kernels import add_norm_backward_kernel as kernel

    types = dict.fromkeys(("dnormed", "dmixed"), "*bf16")
    wide = ("dtotal", "total", "weight", "scale", "dresidual", "dweight")
    types |= dict.fromkeys(wide, "*fp32") | dict.fromkeys(("n_rows", "rows_each"), "i32")
    return kernel, types, {"HIDDEN": 768, "BLOCK": 1024, "num_warps": 4}, None


def cross_entropy():
    from selmem.probe.cross_entropy_kernels import cross_entropy_kernel as kernel

    types = {"logits": "*bf16", "labels": "*i64", "losses": "*fp32"}
    constants = {"IGNORED": -100, "VOCABULARY": 50280, "BLOCK": 4096, "num_warps": 8}
    return kernel, types, constants, None


def choice():
    from selmem.probe.step_kernels import choose_kernel as kernel

    types = {"logits": "*bf16", "ended": "*u8", "recent_row": "i32"}
    types |= dict.fromkeys(("token", "recent", "slot"), "*i64")
    return kernel, types, {"EOS": 0, "VOCABULARY": 50280, "BLOCK": 4096, "num_warps": 8}, None


def step(name, **constants):
    from selmem.probe import gpu_step_kernels

    kernel = getattr(gpu_step_kernels, name)
    wide = ("filters", "partial", "state", "a_matrix", "skip_weight", "dt_bias", "stream")
    types = dict.fromkeys(kernel.arg_names, "*bf16") | dict.fromkeys(wide, "*fp32")
    types |= {"rows": "i32", "eps": "fp32", "token": None, "turn": "*i64", "states": "*fp32"}
    constants |= {"CHANNELS": 1536, "EARLY": True, "INTERPRETED": False, "launch_pdl": True}
    return kernel, types, constants, None


def step_convolution():
    from selmem.probe.gpu_tiles import TILES

    tile = TILES[256].convolve
    constants = {"WIDTH": 4, "SELECTED": 80, "BP": 128, "BM": tile.rows, "BN": tile.channels}
    constants |= {"BIAS": True, "PREFETCH": 39312, "AHEAD": True}
    return step("convolve_kernel", **constants, num_warps=tile.warps)


def step_selection():
    constants = {"RANK": 48, "BK": 64, "MAPS": 32, "BC": 32, "BLOCKS": 12, "BM": 16, "BN": 256}
    constants["AHEAD"] = False
    return step("select_kernel", **constants, num_warps=8)


def step_recurrence():
    return step("recur_kernel", N=16, NP=16, ROWS=2, BD=64, AHEAD=True, num_warps=2)


def step_norm():
    return step("norm_kernel", HIDDEN=768, BLOCK=1024, SPLIT=2, LATE=True, num_warps=4)


def product(cut, inner, outer, *, scaled=False, folded=False):
    from selmem.probe.gluon_kernels import gluon_product_kernel
    from selmem.probe.gpu_product_kernels import product_kernel

    blocks = {"values": (cut.rows, cut.factors), "weight": (cut.columns, cut.factors)}
    types = {name: f"tensordesc<bf16[{r}, {c}]>" for name, (r, c) in blocks.items()}
    if cut.gluon:
        types = {name: f"{t[:-1]},{shared_layout(*blocks[name])!r}>" for name, t in types.items()}
    types |= {"out": "*bf16" if cut.parts == 1 else "*fp32", "rows": "i32", "eps": "fp32"}
    types |= {"squares": "*fp32" if scaled else None, "norm_weight": "*bf16" if folded else None}
    types |= dict.fromkeys(("stream", "sums"), "*fp32" if folded else None)
    constants = {"INNER": inner, "OUTER": outer, "BM": cut.rows, "BN": cut.columns}
    constants |= {"BK": cut.factors, "SCALES": 24 if scaled else 0, "SP": 32, "EARLY": True}
    constants |= {"AHEAD": cut.ahead, "num_warps": cut.warps, "launch_pdl": True}
    if cut.gluon:
        return gluon_product_kernel, types, constants | {"STAGES": cut.stages}, None
    constants |= {"SPLIT": cut.parts, "INTERPRETED": False, "num_stages": cut.stages}
    return product_kernel, types, constants, None


def shared_layout(rows, columns):
    from triton.experimental.gluon.language import NVMMASharedLayout, bfloat16

    return NVMMASharedLayout.get_default_for([rows, columns], bfloat16)


def step_product_in_parts():
    from selmem.probe.gpu_tiles import LEAVE

    return product(LEAVE, 1536, 768)


def step_product_scaled(**changes):
    from selmem.probe.gpu_tiles import TILES

    return product(TILES[256].enter._replace(**changes), 768, 3072, scaled=True)


def step_product_folded(**changes):
    from selmem.probe.gpu_tiles import TILES

    return product(TILES[256].leave._replace(**changes), 1536, 768, folded=True)


def step_product_scaled_without_gluon():
    return step_product_scaled(gluon=False)


def step_product_folded_without_gluon():
    return step_product_folded(gluon=False)


def likeliest():
    from selmem.probe.gpu_product_kernels import likeliest_kernel as kernel
    from selmem.probe.gpu_tiles import TILES

    cut = TILES[256].head
    types = {"values": f"tensordesc<bf16[{cut.rows}, {cut.factors}]>", "slot": "*i64"}
    types |= {"weight": f"tensordesc<bf16[{cut.columns}, {cut.factors}]>", "rows": "i32"}
    types |= {"best": "*fp32", "place": "*i32"}
    constants = {"INNER": 768, "OUTER": 50280, "BM": cut.rows, "BN": cut.columns}
    constants |= {"BK": cut.factors, "BLOCKS": 197, "INTERPRETED": False}
    return kernel, types, constants | {"num_warps": cut.warps, "num_stages": cut.stages}, None


def settlement():
    from selmem.probe.gpu_product_kernels import settle_kernel as kernel

    types = {"best": "*fp32", "place": "*i32", "ended": "*u8", "recent_row": "i32"}
    types |= dict.fromkeys(("token", "recent", "slot"), "*i64")
    constants = {"EOS": 0, "OUTER": 50280, "BLOCKS": 197, "BP": 256, "EARLY": True}
    return kernel, types, constants | {"num_warps": 2, "launch_pdl": True}, None


CASES_FOR_HOPPER = [
    scan_forward,
    scan_backward,
    conv_forward,
    conv_backward,
    norm_forward,
    norm_backward,
    cross_entropy,
    choice,
    step_convolution,
    step_selection,
    step_recurrence,
    step_norm,
    step_product_in_parts,
    step_product_scaled,
    step_product_scaled_without_gluon,
    step_product_folded,
    step_product_folded_without_gluon,
    likeliest,
    settlement,
]


@needs_triton
@pytest.mark.parametrize("case", CASES_FOR_HOPPER)
def test_the_compiler_for_hopper_keeps_everything_in_registers(case, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compile_for_hopper(*case()).asm["cubin"])
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    usage = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True)
    stack = int(re.search(r"STACK:(\d+)", usage.stdout + usage.stderr)[1])
    assert stack <= STACK_LIMIT, usage.stdout


def compile_for_hopper(kernel, types, constants, registers):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.experimental.gluon._runtime import GluonASTSource

    signature, values, alignment = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        kind = None if name in constants else types[name]
        signature[name] = kind or "constexpr"
        if kind is None:
            values[(index,)] = constants.get(name)
        elif kind.startswith("*") or name.endswith("_text"):
            alignment[(index,)] = [["tt.divisibility", 16]]
    language = GluonASTSource if kernel.is_gluon() else ASTSource
    source = language(fn=kernel, signature=signature, constexprs=values, attrs=alignment)
    names = ("num_warps", "num_stages", "launch_pdl")
    options = {"num_warps": 1} | {name: constants[name] for name in names if name in constants}
    if registers is not None:
        options["maxnreg"] = registers
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
