"""Models of transformers with and without our kernels: logits, gradients, generation, packed rows; nothing stays."""

import functools
import gc
import inspect
import re
import subprocess
import sys
from contextlib import ExitStack, nullcontext
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from lens_cases import CASES
from tiny import MODELS
from torch import Tensor, nn

from gladient import lens
from gladient.integrations.transformers import SUPPORTED, Acceleration, accelerate, accelerated
from gladient.seams import places

KNOWN = {name for names in SUPPORTED.values() for name in names}


def homes(model: nn.Module) -> list[Any]:
    """The modules of transformers that hold the model's layers and functions of ours."""
    names = {type(part).__module__ for part in model.modules()}
    return [sys.modules[name] for name in sorted(names) if name.rpartition("modeling_")[2] in KNOWN]


NAMES = [name for name in MODELS if homes(MODELS[name].build(0))]
CALLS = [
    (name, case) for name in NAMES for case in CASES if case != "L=700" and (MODELS[name].padding or "padd" not in case)
]
LARGE = {"qwen3-next", "qwen3.5-moe", "qwen4-exp", "jamba", "granite moe hybrid", "nemotron h"}  # experts: no float64
ROUNDING = 2e-5  # of the largest logit


@torch.no_grad()
def outputs(model: nn.Module, name: str, case: str) -> list[Tensor]:
    """First outputs of the case's successive calls, which carry the cache on."""
    found, cache, key = [], dict[str, Any](), MODELS[name].cache
    for inputs in CASES[case][0](MODELS[name]):
        output = model(**inputs, **cache)
        found.append(output[0])
        if key and inputs.get("use_cache"):
            cache = {key: getattr(output, key)}
    return found


def assert_close(ours: Tensor, plain: Tensor) -> None:
    assert ours.dtype == plain.dtype
    assert (ours - plain).abs().max() <= ROUNDING * plain.abs().max()


@pytest.mark.parametrize(("name", "case"), [call for call in CALLS if "bf16" not in call[1]])
def test_logits(name: str, case: str) -> None:
    model = MODELS[name].build(0)
    plain = outputs(model, name, case)
    with accelerated(model):
        ours = outputs(model, name, case)
    for mine, theirs in zip(ours, plain, strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in LARGE])
def test_logits_in_float64_differ_by_the_float32_inside_the_library(name: str) -> None:
    model = MODELS[name].build(0).double()
    plain = outputs(model, name, "L=70")
    with accelerated(model):
        ours = outputs(model, name, "L=70")
    assert_close(ours[0], plain[0])


@pytest.mark.parametrize(("name", "case"), [call for call in CALLS if "bf16" in call[1]])
def test_logits_in_bfloat16_err_no_more_than_the_librarys(name: str, case: str) -> None:
    model = MODELS[name].build(0).to(torch.bfloat16)
    plain = outputs(model, name, case)
    with accelerated(model):
        ours = outputs(model, name, case)
    exact = torch.cat(outputs(model.float(), name, case), 1)
    assert [x.dtype for x in ours] == [x.dtype for x in plain]
    mine, theirs = ((torch.cat(found, 1) - exact).norm() for found in (ours, plain))
    assert mine <= 1.5 * theirs  # a few hundred numbers: on average it is less


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    model = MODELS[name].build(0).train()
    tokens = torch.randint(3, 64, (2, 40), generator=torch.Generator().manual_seed(0))

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(tokens, use_cache=False)[0].square().mean().backward()
        return [x.grad.clone() for x in model.parameters() if x.grad is not None]

    torch.manual_seed(0)
    plain = gradients()
    with accelerated(model):
        torch.manual_seed(0)
        ours = gradients()
    for mine, theirs in zip(ours, plain, strict=True):
        assert (mine - theirs).norm() <= 1e-4 * theirs.norm() + 1e-7


COMPILED = """
import torch
from transformers import Mamba2Config, Mamba2ForCausalLM
from gladient.integrations.transformers import accelerated

sizes = {"vocab_size": 64, "hidden_size": 16, "num_heads": 8, "head_dim": 4, "state_size": 8, "n_groups": 1}
model = Mamba2ForCausalLM(Mamba2Config(**sizes, num_hidden_layers=1)).eval()
for length in (40, 3):  # 3: fewer tokens than heads
    tokens = torch.arange(3, 3 + length)[None]
    with torch.no_grad(), accelerated(model):
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(tokens, use_cache=False).logits, model(tokens).logits)
"""


@pytest.mark.slow
def test_compiled_models() -> None:
    """In a process of its own: the shape checks of this one are nothing that dynamo traces."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", COMPILED], check=True)


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(MODELS[name].build(0), "generate")])
def test_generation(name: str) -> None:
    model: Any = MODELS[name].build(0)
    prompt = torch.randint(3, 64, (2, 11), generator=torch.Generator().manual_seed(0))
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(prompt, **options)
    with accelerated(model):
        assert torch.equal(model.generate(prompt, **options), plain)


def snapshot(model: nn.Module) -> list[dict[str, Any]]:
    return [dict(vars(each)) for each in (*homes(model), *model.modules())]


def assert_same(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] is other[name] for name in one)


def stop(home: Any, before: list[dict[str, Any]]) -> None:
    assert any(vars(home).get(key) is not old[key] for old in before for key in old)
    raise RuntimeError("stop")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_behind_after_an_exception(name: str) -> None:
    model = MODELS[name].build(0)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="stop"), accelerated(model):
        stop(homes(model)[-1], before)
    assert_same(before, snapshot(model))


def test_two_models_share_and_either_may_end_first() -> None:
    one, other = MODELS["mamba2"].build(0), MODELS["mamba2"].build(1)
    before = snapshot(one)
    first, second = accelerate(one), accelerate(other)
    assert "transformers.models.mamba2.modeling_mamba2.mamba2_chunk_scan" in first.functions
    first.remove()
    first.remove()
    assert first.functions == ()
    assert vars(homes(one)[0])["mamba2_chunk_scan"] is not before[0]["mamba2_chunk_scan"]
    second.remove()
    assert_same(before, snapshot(one))


def test_functions_stay_replaced_when_nobody_keeps_the_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_places", {})  # what stays there would be seen by other tests
    home: Any = ModuleType("home")
    home.causal_conv1d_fn = theirs = lambda x: x
    Acceleration([(home, "causal_conv1d_fn")])
    gc.collect()
    assert home.causal_conv1d_fn is not theirs


def test_other_devices_get_the_librarys_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["mamba"].build(0)
    (home,) = homes(model)
    monkeypatch.setattr(home, "causal_conv1d_fn", lambda *_, **__: "the library's")
    x, weight = torch.ones(1, 2, 3), torch.ones(2, 4)
    with accelerated(model):
        assert home.causal_conv1d_fn(x, weight)[0, 0].tolist() == [1, 2, 3]
        assert home.causal_conv1d_fn(x.to("meta"), weight.to("meta")) == "the library's"


STEPS = ("accelerate", "remove", "capture", "close")
ORDERS = [
    order
    for order in permutations(STEPS)
    if order.index("accelerate") < order.index("remove") and order.index("capture") < order.index("close")
]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_the_lens_and_the_kernels_in_any_order(order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans run on the kernels while accelerated, and make records while captured, whichever was entered first."""
    model, tokens = MODELS["mamba2"].build(0), torch.arange(3, 40)[None]
    (home,) = homes(model)
    theirs, scans, records = home.mamba2_chunk_scan, list[None](), list[lens.Record]()

    @functools.wraps(theirs)
    def counted(*args: Any, **kwargs: Any) -> Any:
        scans.append(None)
        return theirs(*args, **kwargs)

    monkeypatch.setattr(home, "mamba2_chunk_scan", counted)
    before, inside = snapshot(model), dict[str, ExitStack]()
    with torch.no_grad():
        plain = model(tokens).logits
        for step in order:
            if step == "accelerate":
                inside[step] = ExitStack()
                inside[step].enter_context(accelerated(model))
            elif step == "capture":
                inside[step] = ExitStack()
                inside[step].enter_context(lens.capture(model, on_record=records.append))
            else:
                inside.pop("accelerate" if step == "remove" else "capture").close()
            scans.clear()
            records.clear()
            assert_close(model(tokens).logits, plain)
            assert len(scans) == (0 if "accelerate" in inside else 2)
            assert len(records) == (2 if "capture" in inside else 0)
            assert all(record.reconstruction_error.passed for record in records)
        assert torch.equal(model(tokens).logits, plain)
    assert_same(before, snapshot(model))


def test_other_models_are_refused_by_name() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 8,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, num_key_value_heads=1))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM has no layer .* supported are Mamba: mamba, .*qwen3_next"):
        accelerate(llama)


@pytest.mark.parametrize("what", ["a/path", None, transformers.Mamba2ForCausalLM, transformers.MambaConfig()])
def test_what_is_no_model_is_refused(what: Any) -> None:
    rule = r"takes a model of transformers, a torch.nn.Module, not .*: load it first, as by AutoModelForCausalLM"
    with pytest.raises(TypeError, match=rule):
        inspect.unwrap(accelerate)(what)  # without the type checks of the tests


@pytest.mark.parametrize("name", NAMES)
def test_layers_that_call_other_functions_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in transformers 4.57, where scans were methods and the convolution of an absent package was None."""
    model = MODELS[name].build(0)
    before = snapshot(model)
    home = homes(model)[-1]
    scans = [
        key for key in vars(home) if key.endswith(("_scan", "chunk_gated_delta_rule", "chunk_kimi_delta_attention"))
    ]
    for absent in (scans, ["causal_conv1d_fn"]):
        with monkeypatch.context() as without:
            for key in absent:
                without.setattr(home, key, None)
            with pytest.raises(
                ImportError, match=rf"of transformers 5\S+ has no .*{absent[-1]} to replace; .*5\.15 on: pip"
            ):
                accelerate(model)
    assert_same(before, snapshot(model))


def test_a_layer_that_holds_its_function_itself_is_refused() -> None:
    model, other = MODELS["qwen3-next"].build(0), MODELS["qwen3-next"].build(1)
    layer: Any = model.get_submodule("model.layers.1.linear_attn")
    layer.chunk = vars(homes(model)[0])["torch_chunk_gated_delta_rule"]
    for elsewhere in (nullcontext(), accelerated(other)):
        with (
            elsewhere,
            pytest.raises(
                ValueError, match=r"layer 'model.layers.1.linear_attn' holds its function itself, as 'chunk'"
            ),
        ):
            accelerate(model)


def test_without_transformers_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'gladient\[lens\]'"):
        accelerate(nn.Linear(1, 1))


def test_what_is_supported_is_what_the_library_has() -> None:
    """Every architecture of the installed version whose module has one of the functions, and no other."""
    function = re.compile(
        r"^def (mamba2?_\w*scan|torch_chunk_gated_delta_rule|chunk_kimi_delta_attention)\(", re.MULTILINE
    )
    files = Path(transformers.__file__).parent.glob("models/*/modeling_*.py")
    assert {file.parent.name for file in files if function.search(file.read_text())} == KNOWN
