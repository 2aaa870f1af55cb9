"""Names and layout of the released LeWM tensors, against ours.

The released models keep q, k and v of the encoder apart and the mix of actions as a convolution of
width one; everything else differs in name only. 303 released tensors fill 255 of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["modern", "released", "to_ours"]

# Inside an encoder block, as transformers up to 5.8 called it, then as it does since.
_RENAMED = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_OLD_BLOCK = re.compile(r"encoder\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")

# Ours, then theirs.
_IN_ENCODER_BLOCK = {
    "norm1": ("layernorm_before",),
    "norm2": ("layernorm_after",),
    "attention.to_qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.to_out": ("attention.o_proj",),
    "mlp.0": ("mlp.fc1",),
    "mlp.3": ("mlp.fc2",),
}
_IN_PREDICTOR_BLOCK = {
    "norm1": ("attn.norm",),
    "norm2": ("mlp.net.0",),
    "attention.to_qkv": ("attn.to_qkv",),
    "attention.to_out": ("attn.to_out.0",),
    "mlp.0": ("mlp.net.1",),
    "mlp.3": ("mlp.net.4",),
    "modulation": ("adaLN_modulation.1",),
}
_ELSEWHERE = {
    "encoder.cls_token": "encoder.embeddings.cls_token",
    "encoder.positions": "encoder.embeddings.position_embeddings",
    "encoder.patches": "encoder.embeddings.patch_embeddings.projection",
    "encoder.norm": "encoder.layernorm",
    "encoder.projector.expand": "projector.net.0",
    "encoder.projector.norm": "projector.net.1",
    "encoder.projector.contract": "projector.net.3",
    "predictor.positions": "predictor.pos_embedding",
    "predictor.norm": "predictor.transformer.norm",
    "predictor.projector.expand": "pred_proj.net.0",
    "predictor.projector.norm": "pred_proj.net.1",
    "predictor.projector.contract": "pred_proj.net.3",
    "action_encoder.mix": "action_encoder.patch_embed",
    "action_encoder.expand": "action_encoder.embed.0",
    "action_encoder.contract": "action_encoder.embed.2",
}
_CONVOLUTION = "action_encoder.mix.weight"


def modern(name: str) -> str:
    """A released name of either generation, as the later one spells it."""
    match = _OLD_BLOCK.fullmatch(name)
    if match is None:
        return name
    block, part, leaf = match.groups()
    return f"encoder.layers.{block}.{_RENAMED.get(part, part)}.{leaf}"


def released(own: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Names (later generation) and shapes of the released tensors that fill a model's own."""
    shapes = {}
    for name, value in own.items():
        theirs = _theirs(name)
        shape = list(value.shape)
        if len(theirs) > 1:
            shape[0] //= len(theirs)
        elif name == _CONVOLUTION:
            shape.append(1)
        shapes.update(dict.fromkeys(theirs, shape))
    return shapes


def to_ours(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The released tensors under our names and in our layout; names and shapes must fit."""
    ours = {}
    for name in own:
        parts = [state[n] for n in _theirs(name)]
        value = torch.cat(parts) if len(parts) > 1 else parts[0]
        ours[name] = value.squeeze(-1) if name == _CONVOLUTION else value
    return ours


def _theirs(name: str) -> list[str]:
    """The released names behind one of ours: one, or q, k and v in this order."""
    if name in _ELSEWHERE:
        return [_ELSEWHERE[name]]
    front, _, leaf = name.rpartition(".")
    if front in _ELSEWHERE:
        return [f"{_ELSEWHERE[front]}.{leaf}"]
    side, _, block, part = front.split(".", 3)
    if side == "encoder":
        return [f"encoder.layers.{block}.{p}.{leaf}" for p in _IN_ENCODER_BLOCK[part]]
    return [f"predictor.transformer.layers.{block}.{p}.{leaf}" for p in _IN_PREDICTOR_BLOCK[part]]
