"""`tidegate profile`: make a reference profile, show it, hold a window against it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tidegate.bundle import Bundle
from tidegate.bundle.arrays import Array, unpack_arrays
from tidegate.bundle.atomic import write_atomically
from tidegate.cli.actions import add_action
from tidegate.cli.files import read_file
from tidegate.cli.printing import Progress, print_json, print_table
from tidegate.errors import BundleError, ConfigError, InputError
from tidegate.profile import (
    Correction,
    Feature,
    FeatureResult,
    NumberFeature,
    Options,
    Profile,
    TensorKind,
    Window,
    decode,
    encode,
    json_schema,
    judge,
    overall,
    profile_from,
)
from tidegate.profile.tensors import side_arrays

if TYPE_CHECKING:
    from tidegate.evaluate import EvaluationSet

DESCRIPTION = """A reference profile says how the evaluation data are distributed, and from where on a window of later
data counts as drift (see docs/reference-profile.md).

make    from evaluation data; with --bundle the model's outputs are profiled too
show    what a profile says
judge   hold a window against a profile: one verdict for each feature
schema  print the JSON Schema of profiles

exit codes of judge:
  0  no feature drifts
  1  a feature drifts, or the window could not be judged
  2  used wrongly
  3  wait: nothing drifts, but for one feature at least the window is too small to say"""

EXAMPLE = """tidegate profile make --data eval.npz --bundle voice-commands.tide -o profile.json
tidegate profile show profile.json
tidegate profile judge profile.json --window today.npz
tidegate profile judge voice-commands.tide --window device-17.tgw --correction holm
tidegate profile schema > profile-schema.json"""

EXIT_CODES = {"ok": 0, "drift": 1, "wait": 3}

_LIMIT_BYTES = 8 << 30


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    defaults = Options()
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    make = add_action(actions, "profile", "make", summary="from evaluation data", examples=EXAMPLE)
    make.add_argument("--data", type=Path, metavar="FILE.npz", required=True, help="evaluation data: input/NAME arrays")
    make.add_argument("--bundle", type=Path, metavar="BUNDLE", help="the model: its outputs are profiled too")
    make.add_argument("--variant", metavar="ID", help="run this variant (default: the first that can run)")
    make.add_argument(
        "--kind", action="append", default=[], metavar="INPUT=KIND",
        help=f"what an input is, where its form does not say so: {', '.join(get_args(TensorKind))}",
    )  # fmt: skip
    make.add_argument("--sample-rate-hz", type=int, default=0, metavar="HZ", help="of audio (default: the manifest's)")
    make.add_argument(
        "--false-alarm-rate", type=float, default=defaults.false_alarm_rate, metavar="SHARE",
        help="of a feature, in windows without drift (default 0.01)",
    )  # fmt: skip
    make.add_argument(
        "--window-rows", type=int, nargs="+", default=list(defaults.window_rows), metavar="ROWS",
        help="sizes to calibrate for (default 200 1000 5000)",
    )  # fmt: skip
    make.add_argument("--seed", type=int, default=defaults.seed, help="of the bootstrap (default 0)")
    make.add_argument("-o", "--output", type=Path, metavar="FILE", required=True, help="where to write the profile")
    make.set_defaults(act=_make)

    show = add_action(actions, "profile", "show", summary="what a profile says", examples=EXAMPLE)
    show.add_argument("source", type=Path, metavar="SOURCE", help="a profile, or a bundle that has one")
    show.add_argument("--json", action="store_true", help="print the profile itself")
    show.set_defaults(act=_show)

    judging = add_action(actions, "profile", "judge", summary="hold a window against a profile", examples=EXAMPLE)
    judging.add_argument("source", type=Path, metavar="SOURCE", help="a profile, or a bundle that has one")
    judging.add_argument(
        "--window", type=Path, metavar="FILE", required=True,
        help="an .npz with input/NAME and output/NAME arrays (outputs that are not there come from the bundle), "
        "or a window summary that a device wrote",
    )  # fmt: skip
    judging.add_argument(
        "--correction", choices=get_args(Correction), default="none",
        help="none: the rate holds for each feature; bonferroni, holm: for all features together",
    )  # fmt: skip
    judging.add_argument("--json", action="store_true", help="print the results as JSON")
    judging.set_defaults(act=_judge)

    schema = add_action(actions, "profile", "schema", summary="print the JSON Schema of profiles", examples=EXAMPLE)
    schema.set_defaults(act=_schema)


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says."""
    code: int = arguments.act(arguments)
    return code


def _make(arguments: argparse.Namespace) -> int:
    from tidegate.evaluate import read_evaluation_set

    options = Options(
        false_alarm_rate=arguments.false_alarm_rate,
        window_rows=tuple(arguments.window_rows),
        seed=arguments.seed,
        kinds=_kinds(arguments.kind),
        sample_rate_hz=arguments.sample_rate_hz,
    )
    if not arguments.output.parent.is_dir():
        raise ConfigError(f"{arguments.output.parent} is not a directory", fix="make it first, or name another file")
    raw = read_file(arguments.data, "--data")
    data = read_evaluation_set(raw, origin=str(arguments.data))
    profile = _profile(arguments, data, options)
    write_atomically(arguments.output, [encode(profile)])
    print(f"{arguments.output}: {len(profile.features)} features of {profile.rows} rows")
    return 0


def _profile(arguments: argparse.Namespace, data: EvaluationSet, options: Options) -> Profile:
    with nullcontext() if arguments.bundle is None else Bundle.open(arguments.bundle) as bundle:
        outputs = {} if bundle is None else _answers(bundle, data.inputs, data.origin, arguments.variant)
        bar = Progress("calibrating", 1)

        def show(done: int, features: int) -> None:
            nonlocal bar
            bar = bar if done > 1 else Progress("calibrating", features)
            bar.update(done)

        profile = profile_from(
            data.inputs,
            outputs,
            None if bundle is None else bundle.manifest,
            options=options,
            lengths=data.lengths,
            data_sha256=data.sha256,
            progress=show,
        )
        bar.close()
        return profile


def _kinds(words: list[str]) -> dict[str, TensorKind]:
    kinds: dict[str, TensorKind] = {}
    for word in words:
        name, _, kind = word.rpartition("=")
        known = {text: text for text in get_args(TensorKind)}
        if not name or kind not in known:
            raise ConfigError(f"--kind is {word!r}; expected INPUT=KIND", fix=f"a kind is one of {', '.join(known)}")
        kinds[name] = known[kind]
    return kinds


def _answers(bundle: Bundle, inputs: Mapping[str, Array], origin: str, variant: str | None) -> dict[str, Array]:
    """Run the model on all rows."""
    from tidegate.evaluate.running import run_rows
    from tidegate.runtime import load

    rows = len(next(iter(inputs.values())))
    bar = Progress("running", rows)
    with load(bundle, variant=variant) as model:
        missing = [spec.name for spec in model.signature.inputs if spec.name not in inputs]
        if missing:
            raise InputError(f"{origin} lacks input/{missing[0]}", fix="save every input of the model as input/NAME")
        outputs = run_rows(model, {spec.name: inputs[spec.name] for spec in model.signature.inputs}, origin, bar.update)
    bar.close()
    return outputs


def _show(arguments: argparse.Namespace) -> int:
    profile = _read_profile(arguments.source)
    if arguments.json:
        print(encode(profile).decode(), end="")
        return 0
    print(
        f"{profile.rows} rows, {len(profile.features)} features, false-alarm rate {profile.false_alarm_rate:g} "
        f"for windows of {', '.join(map(str, profile.window_rows))} rows"
    )
    print_table(
        ("feature", "rows", "missing", "null", "distribution"),
        [
            (_printable(one.name), str(one.rows), str(one.missing), str(one.null), _printable(_distribution(one)))
            for one in profile.features
        ],
    )
    return 0


def _distribution(feature: Feature) -> str:
    if not isinstance(feature, NumberFeature):
        top = [f"{category.value} {category.count}" for category in feature.top[:5]]
        rest = feature.rows - feature.missing - feature.null - sum(category.count for category in feature.top[:5])
        return ", ".join([*top, f"other {rest}"]) + f" ({feature.distinct} categories)"
    if feature.mean is None or feature.variance is None:
        return "no values"
    return (
        f"mean {feature.mean:.4g}, sd {feature.variance**0.5:.4g}, {feature.minimum:.4g} to {feature.maximum:.4g}, "
        f"{len(feature.counts)} bins"
    )


def _judge(arguments: argparse.Namespace) -> int:
    profile = _read_profile(arguments.source)
    results = judge(_read_window(arguments, profile), arguments.correction)
    verdict = overall(results)
    if verdict == "absent":
        raise InputError(
            f"{arguments.window} holds nothing that the profile knows",
            fix=f"the profile knows {', '.join(rule.tensor for rule in profile.tensors)}",
        )
    if arguments.json:
        print_json({"verdict": verdict, "correction": arguments.correction, "features": results})
    else:
        print_table(("feature", "rows", "statistic", "value", "threshold", "verdict", "note"), _rows(results))
        print(f"\n{verdict}: {_counted(results)}")
    return EXIT_CODES[verdict]


def _read_window(arguments: argparse.Namespace, profile: Profile) -> Window:
    """Return the window of a summary, or of arrays; outputs that the file lacks are what the bundle's model answers."""
    raw = read_file(arguments.window, "--window")
    if not raw.startswith(b"PK"):
        return Window.decode(raw, profile)
    arrays = unpack_arrays(raw, origin=str(arguments.window), limit_bytes=_LIMIT_BYTES)
    inputs, outputs = side_arrays(arrays, "input"), side_arrays(arrays, "output")
    has_outputs = any(rule.side == "output" for rule in profile.tensors)
    if inputs and not outputs and has_outputs and not _is_profile(arguments.source):
        with Bundle.open(arguments.source) as bundle:
            outputs = _answers(bundle, inputs, str(arguments.window), None)
    window = Window(profile)
    window.add(inputs, outputs)
    return window


def _rows(results: tuple[FeatureResult, ...]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for result in results:
        first = result.statistics[0] if result.statistics else None
        statistic = (first.name, f"{first.value:.3g}", f"{first.threshold:.3g}") if first else ("-", "-", "-")
        rows.append((_printable(result.feature), str(result.rows), *statistic, result.verdict, result.reason))
    return rows


def _counted(results: tuple[FeatureResult, ...]) -> str:
    verdicts = [result.verdict for result in results]
    counts = [f"{verdicts.count(name)} {name}" for name in ("drift", "wait", "ok", "absent") if name in verdicts]
    return f"{len(verdicts)} features, {', '.join(counts)}"


def _read_profile(source: Path) -> Profile:
    """Read a profile, or the one that a bundle carries."""
    if _is_profile(source):
        return decode(read_file(source, "SOURCE"), origin=str(source))
    with Bundle.open(source) as bundle:
        raw = bundle.reference_profile()
    if raw is None:
        raise BundleError(
            f"{source} has no reference profile", fix="make one with `tidegate profile make`, or build it in"
        )
    return decode(raw, origin=f"{source}: reference profile")


def _is_profile(source: Path) -> bool:
    return source.suffix == ".json"


def _schema(arguments: argparse.Namespace) -> int:
    print_json(json_schema())
    return 0


def _printable(text: str) -> str:
    """Return text from a file without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
