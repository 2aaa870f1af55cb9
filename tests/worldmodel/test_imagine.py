"""A model made ready to plan: read once, the same futures, few launches, no wait for the host."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from planners import CEM, MPC, optimize
from worldmodel import WorldModel, goals, heads, presets
from worldmodel.rollout import PlanRollout

B, S, H, A = 2, 5, 4, 4

# Views and allocations: a GPU launches nothing for them.
_FREE = {
    "alias", "as_strided", "detach", "empty", "empty_like", "expand", "new_empty", "permute",
    "select", "slice", "split", "squeeze", "t", "transpose", "unbind", "unsqueeze", "view",
    "_unsafe_view",
}  # fmt: skip
# Values that travel: a tensor from Python numbers, a number from a tensor.
_WAITS = {"lift_fresh", "_local_scalar_dense", "item", "nonzero", "equal", "is_nonzero"}


class Launches(TorchDispatchMode):
    """Counts kernels and waits for the host while it is entered.

    Attributes:
        counts: operations by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def launched(self) -> int:
        """Operations that a GPU would launch a kernel for."""
        return sum(n for name, n in self.counts.items() if name not in _FREE)

    @property
    def waits(self) -> int:
        """Copies from or to the host."""
        return sum(n for name, n in self.counts.items() if name in _WAITS)


@pytest.fixture(scope="module")
def model() -> WorldModel:
    """Of the small preset, whose blocks have left the identity."""
    torch.manual_seed(0)
    model = presets.small(action_dim=A)
    for block in model.predictor.blocks:
        torch.nn.init.normal_(block.modulation.weight, std=0.1)
    return model.eval()


def test_futures_are_the_rollout_of_every_plan(model: WorldModel) -> None:
    """futures(actions)[b, s] is the plain rollout of plan s from what was seen of problem b."""
    frames, past = torch.rand(B, 2, 3, 64, 64), torch.randn(B, 1, A)
    actions = torch.randn(B, S, H, A)
    with torch.no_grad():
        found = model.imagine().look(frames, past)(actions)
        z = model.encode(frames)
        for s in range(S):
            expected = model.rollout(z, torch.cat([past, actions[:, s]], dim=1))
            torch.testing.assert_close(found[:, s], expected, rtol=0, atol=1e-5)


def test_one_imagination_serves_every_look(model: WorldModel) -> None:
    """A later look, at more frames, leaves the futures of an earlier one as they were."""
    imagination, actions = model.imagine(), torch.randn(B, S, H, A)
    with torch.no_grad():
        first = imagination.look(torch.rand(B, 1, 3, 64, 64))
        before = first(actions)
        other = imagination.look(torch.rand(B, 3, 3, 64, 64), torch.randn(B, 2, A))
        assert not torch.equal(other(actions), before)
        assert torch.equal(first(actions), before)


def test_arrays_of_environments_are_taken(model: WorldModel) -> None:
    """NumPy frames, past actions and plans in float64 give what float32 tensors give."""
    rng = np.random.default_rng(0)
    frames, past = rng.random((B, 2, 3, 64, 64)), rng.uniform(-1, 1, (B, 1, A))
    actions = rng.uniform(-1, 1, (B, S, H, A))
    imagination = model.imagine()
    with torch.no_grad():
        found = imagination.look(frames, past)(actions)
        floats = [torch.from_numpy(x).float() for x in (frames, past, actions)]
        torch.testing.assert_close(found, imagination.look(*floats[:2])(floats[2]))
        z = model.encode(frames)
        torch.testing.assert_close(
            model.predict(z, torch.from_numpy(actions[:, 0, :2])),
            model.predict(z, floats[2][:, 0, :2]),
        )


def test_several_observations_are_looked_at_by_name() -> None:
    """Two cameras and proprioception go in as a mapping, each of them moves the futures."""
    torch.manual_seed(0)
    sizes = {"pixels": 16, "pixels.wrist": 16, "proprio": 5}
    model = presets.small(action_dim=A, dim=8, observations=sizes).eval()
    seen = {
        "pixels": torch.randint(256, (B, 1, 3, 16, 16), dtype=torch.uint8),
        "pixels.wrist": torch.randint(256, (B, 1, 3, 16, 16), dtype=torch.uint8),
        "proprio": torch.randn(B, 1, 5, dtype=torch.float64),
    }
    imagination, actions = model.imagine(), torch.randn(B, S, H, A)
    with torch.no_grad():
        before = imagination.look(seen)(actions)
        for name, value in seen.items():
            other = imagination.look(seen | {name: value.flip(0)})(actions)
            assert not torch.equal(other, before), name
    with pytest.raises(ValueError, match=r"mapping of \['pixels', 'pixels.wrist', 'proprio'\]"):
        imagination.look({"pixels": seen["pixels"]})
    with pytest.raises(ValueError, match="agree in B and T"):
        imagination.look(seen | {"proprio": torch.randn(B, 2, 5)})


def test_states_alone_are_a_preset() -> None:
    """A model on state vectors takes [B, T, Q], in any units, and plans on them."""
    torch.manual_seed(0)
    model = presets.states(action_dim=A, state_dim=3, dim=8)
    states = 1e4 + 1e3 * torch.randn(64, 4, 3)
    z = model.encode(states)
    assert z.shape == (64, 4, 8)
    assert z.flatten(0, 1).std(0).min() > 1e-3
    model.eval()
    imagination = model.imagine()
    cost = goals.near(imagination.embed(states[:B, 3])).of(imagination.look(states[:B, :1]))
    plan = optimize(CEM(20, 4), cost, torch.zeros(B, H, A), iterations=2)
    assert plan.cost.isfinite().all()


def test_a_lower_precision_leaves_the_model_alone(model: WorldModel) -> None:
    """Futures come in the dtype that was asked for; the model's weights keep theirs."""
    frames, actions = torch.rand(B, 1, 3, 64, 64), torch.randn(B, S, H, A)
    with torch.no_grad():
        low = model.imagine(torch.bfloat16).look(frames)(actions)
        high = model.imagine().look(frames)(actions)
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), high, rtol=0.05, atol=0.05 * float(high.std()))
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_a_cost_never_waits_for_the_host(model: WorldModel) -> None:
    """No value travels between host and device while plans are scored, however they attend."""
    frames, goal = torch.rand(B, 2, 3, 64, 64), torch.rand(B, 3, 64, 64)
    imagination, actions = model.imagine(), torch.randn(B, S, H, A)
    near = goals.near(imagination.embed(goal), frames="nearest")
    cost = (near + 0.5 * goals.state(torch.nn.Linear(64, 2), torch.zeros(B, 2))).of(
        imagination.look(frames, torch.randn(B, 1, A))
    )
    with torch.no_grad(), Launches() as count:
        cost(actions)
    assert count.waits == 0
    with torch.no_grad(), Launches() as count:
        PlanRollout(model.predictor, fused=True)(*(torch.randn(2, t, 64) for t in (2, 1)),
                                                 torch.randn(2, S, H, 64))  # fmt: skip
    assert count.waits == 0
    with Launches() as count:
        torch.zeros(6)[[1, 4]] += 1
        torch.ones(()).item()
    assert count.waits == 3


def test_a_plan_at_paper_settings_launches_at_most_15000_operations() -> None:
    """Five steps of six blocks, thirty times: half of the 30,000 of step-by-step modulations."""
    model = presets.lewm().eval()
    rollout = PlanRollout(model.predictor, fused=True)
    z, none = torch.randn(1, 1, 192), torch.zeros(1, 0, 192)
    near = goals.near(torch.randn(1, 192))

    def cost(actions: torch.Tensor) -> torch.Tensor:
        return near(rollout(z, none, model.action_encoder(actions)))

    def launched(iterations: int) -> int:
        with torch.no_grad(), Launches() as count:
            optimize(CEM(300, 30), cost, torch.zeros(1, 5, 10), iterations=iterations)
        return count.launched

    # The loop repeats itself: 2 and 3 iterations tell of 30.
    two, three = launched(2), launched(3)
    assert two + 28 * (three - two) <= 15_000


def test_says_what_is_wrong(model: WorldModel) -> None:
    """Training mode, single frames and plans of another batch are named."""
    with pytest.raises(ValueError, match="eval mode"):
        presets.small(action_dim=A).imagine()
    imagination = model.imagine()
    with pytest.raises(ValueError, match=r"observations must be \[B, T, \.\.\.\].*got \[2, 3\]"):
        imagination.look(torch.rand(2, 3))
    with pytest.raises(ValueError, match=r"B = 1, got \[2, 5, 4, 4\]"):
        imagination.look(torch.rand(1, 1, 3, 64, 64))(torch.randn(B, S, H, A))
    with pytest.raises(ValueError, match=r"past_actions must be .* T = 1, got \[1, 3, 4\]"):
        imagination.look(torch.rand(1, 1, 3, 64, 64), torch.zeros(1, 3, A))


def test_another_default_device_changes_nothing(model: WorldModel) -> None:
    """Everything made along the way lies where the model and the data lie."""
    frames, goal = torch.rand(B, 2, 3, 64, 64).numpy(), torch.rand(B, 3, 64, 64)
    past, actions = torch.randn(B, 1, A), torch.randn(B, S, H, A)
    z = torch.randn(200, 64)
    weights = [1.0] * H

    def cost() -> torch.Tensor:
        imagination = model.imagine()
        head = heads.fit_head(z, z[:, :2], (4,))
        seen = goals.near(imagination.embed(goal), weights=weights)
        kept = goals.charge(goals.typical(z))
        total = seen + kept + goals.state(head, torch.zeros(2, device="cpu"))
        return total(imagination.look(frames, past)(actions))

    with torch.no_grad():
        expected = cost()
        with torch.device("meta"):
            assert torch.equal(cost(), expected)


def test_a_controller_keeps_the_history_that_a_look_takes(model: WorldModel) -> None:
    """What `MPC` has seen and done goes into `look` as it is, and a last-step cost is warned of."""
    mpc = MPC(CEM(16, 4), horizon=H, action_dim=A, iterations=1, batch=B, history=3, block=2)
    imagination = model.imagine()
    goal = goals.near(imagination.embed(torch.rand(B, 3, 64, 64)), "nearest")
    frames = [torch.rand(B, 3, 64, 64) for _ in range(4)]
    done = []
    for frame in frames:
        mpc.see(frame)
        futures = imagination.look(mpc.observations, mpc.past_actions)
        done.append(mpc.act(lambda actions, f=futures: goal(f(actions))).flatten(1))
    seen = imagination.look(torch.stack(frames[1:], dim=1), torch.stack(done[1:3], dim=1))
    plans = torch.randn(B, S, H, A)
    with torch.no_grad():
        torch.testing.assert_close(futures(plans), seen(plans))
    last = goals.near(torch.zeros(64))
    with pytest.warns(RuntimeWarning, match="looks at the last of 4 actions alone"):
        MPC(CEM(16, 4), horizon=H, action_dim=A, iterations=1, batch=B).act(
            lambda actions: last(futures(actions))
        )
