"""`worldmodel evaluate`: policies and task, attempts batch by batch, and the result.

An evaluation writes a folder with a page. A stopped evaluation continues in that folder.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from worldmodel._files import write_atomically
from worldmodel.apps.evaluate import result as results
from worldmodel.apps.evaluate.films import film_attempts
from worldmodel.apps.evaluate.manifest import PROTOCOLS, Manifest, read_manifest, rule_of
from worldmodel.apps.evaluate.policies import FLOORS, PlannerPolicy, Policy, attempt, policy_of
from worldmodel.apps.folder import begin_folder, write_json
from worldmodel.apps.machine import commit, device_of, machine, versions
from worldmodel.apps.parsing import complete, kept_settings
from worldmodel.apps.progress import Progress, say
from worldmodel.apps.ranks import joined
from worldmodel.apps.report import render, write_index
from worldmodel.apps.runs import KeptPlanner, Run, kept_planner, open_run
from worldmodel.apps.settings import PLANNER, EvaluateSettings, PlannerSettings, TrialSettings
from worldmodel.checkpoint import digest
from worldmodel.hub import locate
from worldmodel.worlds import World, open_world
from worldmodel.worlds.contract import imports_code
from worldmodel.worlds.rules import Rule, rules_of

_SETTINGS = "evaluate.json"


class Trial(NamedTuple):
    """Policies and their task."""

    policies: dict[str, Policy]  #: the evaluated policy and the baselines
    world: World  #: at the size the model sees
    manifest: Manifest  #: with the pairs to try; the published protocol takes the first 50
    manifest_pairs: int  #: pairs in its file
    settings: TrialSettings
    fingerprint: results.Fingerprint
    keys: list[results.Key]  #: all attempts to make
    rule: Rule  #: of success
    others: dict[str, Rule]  #: the world's own rule and the published one, if not `rule`


def prepare(
    who: Run | Policy, manifest: Manifest, settings: TrialSettings, world: World | None = None
) -> Trial:
    """Open the manifest's world, unless it is given, and check that all parts fit.

    Raises: ValueError if the run has another world or action width, was trained on an episode of
        the manifest, or is a GCBC policy with a planner; if the manifest's protocol allows solved
        pairs and `settings` name another; ImportError if the world's package is missing.
    """
    run = who if isinstance(who, Run) else None
    if run is not None and run.world not in (None, manifest.env):
        raise ValueError(f"the run was trained on {run.world}, the manifest is of {manifest.env}")
    terms, sources = PROTOCOLS[settings.protocol], set(manifest.source_episodes)
    offset, budget, name = manifest.offset, manifest.budget, settings.protocol
    low, high = terms.offsets or (offset, offset)
    if PROTOCOLS[manifest.protocol].any_rows and not terms.any_rows:
        raise ValueError(
            f"the manifest was drawn by the {manifest.protocol} protocol, with solved pairs; "
            f"add --protocol {manifest.protocol} to evaluate on it"
        )
    if (
        (terms.drawn and manifest.protocol not in terms.drawn) or not low <= offset <= high
        or budget != offset * (terms.stretch or budget / offset)
    ):  # fmt: skip
        raise ValueError(
            f"protocol {name} needs a manifest drawn for it, got one of protocol "
            f"{manifest.protocol}, offset {offset}, budget {budget}: make one by "
            f"`worldmodel manifest --protocol {name}`"
        )
    if run and (seen := run.trained_on & sources) and not terms.any_rows:
        raise ValueError(
            f"the run was trained on {len(seen)} of the {len(sources)} episodes that the manifest "
            "draws from; make one from held-out episodes (manifest --unseen-by RUN), or add "
            "--protocol historical"
        )
    if settings.compile:
        import torch._dynamo  # noqa: F401 - an import after an OpenGL context would crash
    # A file may name a class, but only the user's --env lets it be imported.
    if world is None and imports_code(manifest.env) and manifest.env != settings.env:
        raise ValueError(
            f"the manifest is of {manifest.env}, which is not a built-in world: add --env "
            f"{manifest.env} to import and run that class"
        )
    side = run.model.encoder.image_size if run else 64
    world = world or open_world(manifest.env, image_size=side, workers=settings.workers)
    if manifest.starts.shape[1] != world.state_dim:
        raise ValueError(
            f"the manifest's states must have the {world.state_dim} entries of {manifest.env}, "
            f"got {manifest.starts.shape[1]}"
        )
    rule, known = rule_of(world, name), rules_of(world)
    others = {n: known[n] for n in ("own", "published") if known.get(n, rule) != rule}
    policy = policy_of(who, world, settings) if isinstance(who, Run) else who
    policies = {results.PLANNED: policy, **FLOORS}
    if world.expert(manifest.goals[:1]) is None:
        del policies["expert"]
    tried = manifest.take(slice(terms.pairs))
    # Only the evaluated and the random policy differ between repeats.
    times = {results.PLANNED: settings.seeds, "random": settings.seeds}
    keys = [(name, repeat, pair) for name in policies for repeat in range(times.get(name, 1))
            for pair in range(len(tried.seeds))]  # fmt: skip
    planned = policy if isinstance(policy, PlannerPolicy) else None
    if planned and planned.guide:
        planned.guide.warn(*(world.draw(states) for states in (tried.starts, tried.goals)))
    fingerprint = results.Fingerprint(
        run=str(run.folder) if run else type(policy).__name__,
        objective=run.objective if run else None, weights=digest(run.model) if run else None,
        planner=planned.planner.described() if planned else type(policy).__name__,
        rollouts_per_decision=planned.rollouts if planned else None,
        batch_size=settings.batch_size, frameskip=run.frameskip if run else None,
        image_size=world.image_size, world_versions=world.versions(),
        manifest_versions=manifest.versions, versions=versions(), commit=commit(),
        machine=machine(str(next(run.model.parameters()).device) if run else "cpu"),
    )  # fmt: skip
    pairs = len(manifest.seeds)
    return Trial(policies, world, tried, pairs, settings, fingerprint, keys, rule, others)


def evaluate(
    who: Run | Policy, manifest: Manifest, settings: TrialSettings, *,
    world: World | None = None, title: str = "evaluate",
) -> results.Result:  # fmt: skip
    """Try a run or a policy on a manifest, and the random, no-op and expert policies too.

    A run's world model is used with the planner of `settings`. `world` None: the manifest's.

    Raises: as `prepare`.
    """
    trial = prepare(who, manifest, settings, world)
    with Progress(title, len(trial.keys), unit="attempt") as bar:
        return result_of(trial, [one for some in tries(trial, trial.keys, bar) for one in some])


def tries(
    trial: Trial, keys: Iterable[results.Key], bar: Progress
) -> Iterator[list[results.Tried]]:
    """Yield the outcomes of each batch of `keys`, which are in the order of `trial.keys`.

    The batch size and the order of the pairs change no outcome.
    """
    manifest, size, rule = trial.manifest, trial.settings.batch_size, trial.rule
    at_end = PROTOCOLS[trial.settings.protocol].at_end
    for (name, repeat), group in groupby(keys, lambda key: key[:2]):
        pairs, seeds = np.asarray([pair for _, _, pair in group]), manifest.seeds_of(repeat)
        for some in np.split(pairs, range(size, len(pairs), size)):
            mine, acting = manifest.take(some), trial.policies[name]
            found = attempt(
                trial.world, mine, acting, budget=manifest.budget, seeds=seeds[some], rule=rule
            )
            success = found.at_end if at_end else found.success
            others = {n: r.met(found.paths[:, 1:], mine.goals) for n, r in trial.others.items()}
            yield [
                results.Tried(
                    pair=pair, repeat=repeat, policy=name,
                    success=bool(success[n]), success_at_end=bool(found.at_end[n]),
                    steps=int(found.steps[n]) if success[n] else None,
                    final_distance=round(float(found.distance[n]), 4),
                    roughness=round(float(found.roughness[n]), 5),
                    by_rule={k: (bool(m[n].any()), bool(m[n, -1])) for k, m in others.items()},
                    together=0 if n else len(some), seconds=() if n else found.seconds,
                )
                for n, pair in enumerate(some.tolist())
            ]  # fmt: skip
            bar.update(len(some))


def result_of(trial: Trial, tried: Sequence[results.Tried]) -> results.Result:
    """The result of all attempts of a trial, in the order of `trial.keys`."""
    manifest, pairs = trial.manifest, len(trial.manifest.seeds)
    planned = [one for one in tried if one.policy == results.PLANNED]
    by_repeat = np.asarray([one.success for one in planned]).reshape(-1, pairs).mean(1)
    steps = [one.steps for one in planned if one.steps is not None]
    distance, far = np.quantile([one.final_distance for one in planned], [0.5, 0.95]).tolist()
    seconds = [s for one in planned for s in one.seconds]
    median, slow = np.quantile(seconds, [0.5, 0.95]).tolist()
    together = max(one.together for one in planned)
    rates: dict[str, Any] = {"expert_success_rate": None, "expert_success_interval": None}
    for policy in trial.policies:
        name = "" if policy == results.PLANNED else f"{policy}_"
        mine = [one for one in tried if one.policy == policy]
        for end, kind in (("", "success"), ("_at_end", "success_at_end")):
            shares = np.asarray(list(results.shares_of(mine, kind).values()))
            rates[f"{name}success_rate{end}"] = round(float(shares.mean()), 4)
            if not (name and end):
                # Neither repeats of a pair nor pairs of one episode narrow the interval.
                ends = results.rate_by_episode(shares, manifest.episodes)[1:3]
                rates[f"{name}success_interval{end}"] = tuple(round(bound, 4) for bound in ends)
    far_off = trial.world.distance(manifest.starts, manifest.goals)
    progress = [1 - one.final_distance / float(far_off[one.pair]) for one in planned
                if far_off[one.pair] > 0]  # fmt: skip
    rough = [one.roughness for one in planned if one.roughness is not None]
    judged = {}
    for name, rule in trial.others.items():
        rate, end = np.mean([one.by_rule[name] for one in planned], axis=0).round(4).tolist()
        judged[name] = results.Judged(
            criterion=rule.criterion, success_rate=rate, success_rate_at_end=end
        )
    reports = (PROTOCOLS[trial.settings.protocol].clear or {}).get(trial.world.name)
    return results.Result(
        env=manifest.env, protocol=trial.settings.protocol, manifest_protocol=manifest.protocol,
        manifest_pairs=trial.manifest_pairs, manifest_hash=manifest.sha256,
        criterion=trial.rule.criterion, offset=manifest.offset, budget=manifest.budget,
        pairs_dropped_as_solved=manifest.dropped_as_solved, fingerprint=trial.fingerprint, **rates,
        success_rate_by_repeat=tuple(round(float(rate), 4) for rate in by_repeat),
        pairs=pairs, repeats=len(by_repeat),
        mean_steps_to_goal=round(float(np.mean(steps)), 2) if steps else None,
        median_steps_to_goal=float(np.median(steps)) if steps else None,
        progress_to_goal=round(float(np.median(progress)), 4) if progress else None,
        action_roughness=round(float(np.mean(rough)), 5) if rough else None,
        by_rule=judged,
        pair_episodes=tuple(manifest.episodes.tolist()), clear_reports=reports,
        final_distance=results.Distances(median=round(distance, 4), p95=round(far, 4)),
        planning_seconds=results.PlanningSeconds(
            median=round(median, 5), p95=round(slow, 5), pairs_per_decision=together,
            median_per_pair=round(median / together, 6), decisions=len(seconds),
        ),
        outcomes=tuple(planned),
    )  # fmt: skip


def planner_of_run(
    settings: EvaluateSettings, manifest: str, *, quiet: bool = False
) -> EvaluateSettings:
    """Merge the settings over the run's kept planner, unless they name planner or preset."""
    told = settings.model_fields_set
    if {"planner", "preset"} & told or (kept := kept_planner(locate(settings.run))) is None:
        return settings
    if kept.manifest == manifest and not settings.keep_planner:
        chosen = "the run's planner settings were chosen on these pairs"
        warnings.warn(f"{chosen}: judge it on other pairs", RuntimeWarning, stacklevel=2)
    given = {name: getattr(settings, name) for name in told}
    usual = PlannerSettings().model_dump(mode="json")
    own = {k: v for k, v in kept.settings.items() if usual.get(k) != v and k not in told}
    words = ", ".join(f"{name} {value}" for name, value in own.items()) or "the defaults"
    if not quiet:
        say(f"planner of the run ({PLANNER}): {words}")
    return complete(EvaluateSettings, "evaluate", kept.settings, given)


def run(settings: EvaluateSettings) -> int:
    """Evaluate a run, or continue a stopped evaluation; every process takes its share."""
    out = settings.out
    with ExitStack() as held, joined(settings.device) as ranks:
        with ranks.together():
            manifest = read_manifest(settings.manifest)
            settings = planner_of_run(settings, manifest.sha256, quiet=not ranks.first)
            settings = settings.model_copy(update={"device": device_of(settings.device)})
            begun, resume = out / _SETTINGS, (out / _SETTINGS).is_file()
            if (out / "index.html").exists():
                raise FileExistsError(
                    f"--out must not hold a result yet, got {out}: choose another folder"
                )
            kept = kept_settings(EvaluateSettings, "evaluate", begun, out=out) if resume else None
            if kept and (other := settings.changed(kept)):
                raise ValueError(
                    f"--out must not hold another evaluation yet, {out} has other settings: "
                    + ", ".join(other)
                )
            subject = open_run(settings.run, ranks.device, data=settings.data)
            trial = prepare(subject, manifest, settings)
            mark = results.Mark(manifest=manifest.sha256, weights=trial.fingerprint.weights)
            if ranks.first:
                held.enter_context(begin_folder(out, _SETTINGS, resume=resume))
        with ranks.together():
            log, keys = results.Log(out, mark, ranks.rank), trial.keys
            if ranks.first:
                write_json(settings.model_dump(mode="json"), begun)
            left = [key for key in keys if key not in log.tried]
        with ranks.together():
            # In turns, so that every rank gets a share of the slow, planned attempts.
            mine, done = left[ranks.rank :: ranks.size], len(keys) - len(left)
            with Progress(
                "evaluate", done + len(mine), start=done, unit="attempt", quiet=not ranks.first
            ) as bar:
                for some in tries(trial, mine, bar):
                    log.write(some)
        if not ranks.first:
            return 0
        result = result_of(trial, [results.Log(out, mark).tried[key] for key in keys])
        # The result comes before the videos: an error in those must not lose hours of planning.
        results.write_result(result, out / "result.json")
        if settings.keep_planner:
            planner = settings.model_dump(mode="json", include=set(PlannerSettings.model_fields))
            chosen = KeptPlanner(
                settings=planner, manifest=manifest.sha256, success_rate=result.success_rate
            )
            write_json(chosen.model_dump(), subject.folder / PLANNER)
        who = (trial.world, trial.manifest, trial.policies[results.PLANNED], result.reached)
        films = film_attempts(*who, out, each=settings.films)
        # The page comes last: if it exists, the evaluation is complete.
        content = result.model_dump(mode="json")
        page = render("evaluate.html", result=content, films=films)
        write_atomically(out / "index.html", page.encode())
        if out.absolute().parent == settings.run.absolute():
            write_index(settings.run)
    say(render("evaluate.txt", result=content, out=out))
    return 0
