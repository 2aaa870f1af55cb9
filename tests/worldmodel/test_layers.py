"""The building blocks: identity at birth, causality, attention and the head by hand."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.layers import AdaLNBlock, Attention, ProjectionHead, ViTBlock, feed_forward


def adaln(dropout: float = 0.0) -> AdaLNBlock:
    """A block whose modulation is not zero, so that nothing hides behind closed gates."""
    block = AdaLNBlock(dim=12, heads=2, dim_head=8, hidden_dim=20, dropout=dropout)
    torch.nn.init.normal_(block.modulation.weight, std=0.3)
    torch.nn.init.normal_(block.modulation.bias, std=0.3)
    return block.eval()


def test_new_adaln_block_is_the_identity() -> None:
    """With a zero modulation both gates are closed, in training too, whatever the condition."""
    block = AdaLNBlock(dim=12, heads=2, dim_head=8, hidden_dim=20, dropout=0.5).train()
    x = torch.randn(3, 4, 12)
    assert torch.equal(block(x, 100 * torch.randn(3, 4, 12)), x)


def test_adaln_block_equals_its_formula() -> None:
    """The block is x + g (attention or MLP) of norm((1 + s) normalise(x) + b), twice."""
    block, x, condition = adaln(), torch.randn(3, 4, 12), torch.randn(3, 4, 12)

    def normalise(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()

    c = condition * torch.sigmoid(condition)
    b1, s1, g1, b2, s2, g2 = F.linear(c, block.modulation.weight, block.modulation.bias).split(
        12, dim=-1
    )
    y = x + g1 * block.attention(block.norm1((1 + s1) * normalise(x) + b1))
    y = y + g2 * block.mlp(block.norm2((1 + s2) * normalise(y) + b2))
    torch.testing.assert_close(block(x, condition), y)


def test_adaln_block_is_causal() -> None:
    """A later token or condition leaves earlier outputs bit-identical, and moves its own."""
    block, x, condition = adaln(), torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    before = block(x, condition)
    for moved in (x, condition):
        kept = moved.clone()
        moved[:, 3] += 1.0
        after = block(x, condition)
        assert torch.equal(after[:, :3], before[:, :3])
        assert not torch.isclose(after[:, 3], before[:, 3]).all()
        moved.copy_(kept)


def test_attention_equals_softmax_by_hand() -> None:
    """Each head averages its values by softmax(q·k / √d), over the past only where causal."""
    for causal in (False, True):
        attention = Attention(6, heads=2, dim_head=5, bias=True, causal=causal).eval()
        x = torch.randn(2, 4, 6)
        q, k, v = attention.to_qkv(x).chunk(3, dim=-1)
        heads = []
        for h in range(2):
            part = slice(5 * h, 5 * h + 5)
            score = q[..., part] @ k[..., part].mT / math.sqrt(5)
            if causal:
                score = score.masked_fill(torch.ones(4, 4).triu(1).bool(), -math.inf)
            heads.append(score.softmax(-1) @ v[..., part])
        expected = attention.to_out(torch.cat(heads, dim=-1))
        torch.testing.assert_close(attention(x), expected)


def test_attention_without_order_permutes_with_its_tokens() -> None:
    """A ViT block has no positions of its own: permuted tokens give permuted outputs."""
    block, x = ViTBlock(dim=8, heads=2, hidden_dim=16), torch.randn(2, 5, 8)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(block(x[:, order]), block(x)[:, order])


def test_dropout_works_in_training_only() -> None:
    """Dropout makes two training passes differ and two evaluation passes equal."""
    block, x, condition = adaln(dropout=0.5), torch.randn(2, 4, 12), torch.randn(2, 4, 12)
    assert torch.equal(block(x, condition), block(x, condition))
    block.train()
    assert not torch.equal(block(x, condition), block(x, condition))
    assert [p.p for p in feed_forward(4, 8, 0.25) if isinstance(p, torch.nn.Dropout)] == [0.25] * 2


def test_projection_head_standardises_its_hidden_layer_over_all_leading_dims() -> None:
    """In training the hidden units have mean 0 and variance 1 over every vector of [B, T]."""
    head, seen = ProjectionHead(4, 16).train(), []
    head.norm.register_forward_hook(lambda *args: seen.append(args[-1]))
    out = head(3 + 5 * torch.randn(8, 6, 4))
    assert out.shape == (8, 6, 4)
    assert seen[0].shape == (48, 16)
    torch.testing.assert_close(seen[0].mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0].var(0, unbiased=False), torch.ones(16), atol=1e-3, rtol=0)


def test_projection_head_treats_each_vector_alone_in_evaluation() -> None:
    """With stored statistics a vector's projection does not depend on its neighbours."""
    head = ProjectionHead(4, 16)
    head(torch.randn(32, 4))
    head.eval()
    x = torch.randn(5, 3, 4)
    torch.testing.assert_close(head(x)[2, 1], head(x[2:3, 1:2])[0, 0])
