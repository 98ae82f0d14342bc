"""Where transformers keeps what the lens reads and the kernels replace; what a release renames is renamed here."""

from dataclasses import dataclass

__all__ = [
    "Architecture", "CONVOLUTION", "CONVOLUTION_STEP", "DELTA", "KIMI", "LIGHTNING", "MAMBA",
    "MAMBA2", "RGLRU", "RWKV", "TESTED", "XLSTM",
]  # fmt: skip

TESTED = ((5, 15), (5, 23))
"""The oldest and the newest release of transformers that these were tested with."""
CONVOLUTION = "causal_conv1d_fn"
"""The short convolution before a scan, in the module of every model type of `MAMBA`, `MAMBA2`, `DELTA` and `KIMI`."""

CONVOLUTION_STEP = "causal_conv1d_update"
"""The same for one token beside a cache."""


@dataclass(frozen=True)
class Architecture:
    """One kind of gated layer.

    Attributes:
        models: model types; the layers of TYPE are in transformers.models.TYPE.modeling_TYPE.
        layers: the classes of the layers.
        scan: the function of that module, or the method of the layer, that runs over all tokens; "" where none does.
        step: the function that runs for one token beside a cache; "" where `scan` does.
        whole: the function that runs a whole layer in one kernel; "" where there is none.
        parts: the attributes of a layer that are read.

    >>> MAMBA.homes[0], MAMBA.layers[0], MAMBA.scan
    ('transformers.models.mamba.modeling_mamba', 'MambaMixer', 'mamba_selective_scan')
    """

    models: tuple[str, ...]
    layers: tuple[str, ...]
    scan: str = ""
    step: str = ""
    whole: str = ""
    parts: tuple[str, ...] = ()

    @property
    def homes(self) -> tuple[str, ...]:
        """The full names of the Python modules of its model types."""
        return tuple(f"transformers.models.{model}.modeling_{model}" for model in self.models)


MAMBA = Architecture(
    models=("mamba", "falcon_mamba", "jamba", "zamba"),
    layers=("MambaMixer", "FalconMambaMixer", "JambaMambaMixer", "ZambaMambaMixer"),
    scan="mamba_selective_scan",
    step="mamba_selective_state_update",
    whole="mamba_inner_fn",
)
"""Mamba, and the hybrids that share its scan."""
MAMBA2 = Architecture(
    models=("mamba2", "bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "zamba2"),
    layers=(
        "Mamba2Mixer",
        "BambaMixer",
        "FalconH1Mixer",
        "GraniteMoeHybridMambaLayer",
        "NemotronHMamba2Mixer",
        "Zamba2MambaMixer",
    ),
    scan="mamba2_chunk_scan",
    step="mamba2_selective_state_update",
    whole="mamba2_split_conv1d_scan_combined",
)
"""Mamba-2, and the hybrids that share its scan."""
DELTA = Architecture(
    models=("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen4_exp", "olmo_hybrid"),
    layers=(
        "Qwen3NextGatedDeltaNet",
        "Qwen3_5GatedDeltaNet",
        "Qwen3_5MoeGatedDeltaNet",
        "Qwen4ExpTextGatedDeltaNet",
        "OlmoHybridGatedDeltaNet",
    ),
    scan="torch_chunk_gated_delta_rule",
    step="torch_recurrent_gated_delta_rule",
)
"""The gated delta rule."""
KIMI = Architecture(
    models=("kimi_linear", "glm5_next", "bailing_hybrid"),
    layers=("KimiLinearDeltaAttention", "BailingHybridDeltaAttention", "Glm5NextTextLinearAttention"),
    scan="chunk_kimi_delta_attention",
    step="recurrent_kimi_delta_attention",
)
"""Kimi delta attention."""
LIGHTNING = Architecture(
    models=("minimax",), layers=("MiniMaxLightningAttention",), parts=("qkv_proj", "norm", "slope_rate")
)
"""MiniMax's lightning attention."""
RGLRU = Architecture(models=("recurrent_gemma",), layers=("RecurrentGemmaRglru",), scan="_rnn_scan")
"""RG-LRU of RecurrentGemma."""
RWKV = Architecture(models=("rwkv",), layers=("RwkvSelfAttention",), scan="rwkv_linear_attention")
"""RWKV-4."""
XLSTM = Architecture(models=("xlstm",), layers=("xLSTMLayer",), parts=("mlstm_backend",))
"""xLSTM's mLSTM."""
