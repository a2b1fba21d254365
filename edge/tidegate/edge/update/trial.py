"""Is a version that was just activated kept? From counters and thresholds to commit, roll back or wait. Pure.

Somebody looks again and again while calls come in, so a plain bound on a share would sooner or later call any version
bad. A share over its maximum therefore counts as proven only by a test that holds however often one looks: the
likelihood of the calls seen, averaged over every share above the maximum, against their likelihood at the maximum. A
version whose true share is at most the maximum ever reaches a ratio of 100 with a probability of at most 1 % (Ville's
inequality for a non-negative supermartingale; the average over shares is Robbins' method of mixtures, Annals of
Mathematical Statistics 41, 1970). Calls are not independent: the first ones may fail together because a device is
busy. So no share is judged on fewer than five bad calls.

The order:

1. Roll back at once: too many failed loads, too many restarts within a minute, an app that cannot
   work with it, no call whose input fitted, or a share
   that is proven to be over its maximum.
2. At the deadline decide on what there is: a share over its maximum rolls back, proven or not. Counters that were lost
   are no evidence of health, so they roll back too. A version that nobody called is kept: it passed its probe, and
   waiting for ever would keep every later update out.
3. Commit: enough calls, enough time, and no share over its maximum.
4. Wait.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from tidegate.bundle.manifest import TrialSettings
from tidegate.edge.update.counters import Counters, most_within
from tidegate.errors import ConfigError
from tidegate.evaluate import binomial

Decision = Literal["commit", "roll back", "wait"]

FALSE_ALARM = 0.01
"""Largest probability that a version at its maximum is ever rolled back for one share."""
FEWEST_BAD_CALLS = 5
MINUTE_S = 60.0


@dataclass(frozen=True)
class Verdict:
    """What follows from the counters."""

    decision: Decision
    reason: str
    """for people, with the numbers found and expected"""
    is_doubtful: bool = False
    """a share is over its maximum and that is not proven: no reason to leave, but none to keep a newer one waiting"""


@dataclass(frozen=True)
class _Share:
    what: str
    bad: int
    of: int
    maximum: float

    @property
    def is_over(self) -> bool:
        return self.bad > self.maximum * self.of

    @property
    def is_proven_over(self) -> bool:
        return self.bad >= FEWEST_BAD_CALLS and proves_over(self.bad, self.of, self.maximum)

    def __str__(self) -> str:
        return f"{self.bad} of {self.of} {self.what} ({self.bad / self.of:.1%}); expected at most {self.maximum:.1%}"


def judge(counters: Counters, settings: TrialSettings, *, elapsed_s: float, is_readable: bool = True) -> Verdict:
    """Decide about a version under trial; see the module's text.

    Args:
        counters: of this release, over all processes.
        settings: thresholds.
        elapsed_s: since the version was activated. A negative time, from a clock that was set back, counts as 0.
        is_readable: False when the counters' file could not be read, so that `counters` is not all there was.
    """
    shares = [share for share in _shares(counters, settings) if share.of]
    for reason in _proven(counters, settings, shares):
        return Verdict("roll back", reason)
    over = next((share for share in shares if share.is_over), None)
    if elapsed_s >= settings.deadline_s:
        return _at_the_deadline(counters, over, is_readable=is_readable)
    if over is not None:
        return Verdict("wait", f"{over}, but too few to be sure", is_doubtful=True)
    if not is_readable:
        return Verdict("wait", "the health counters cannot be read, which is no evidence of health")
    if counters.calls < settings.minimum_calls:
        return Verdict("wait", f"{counters.calls} calls; expected at least {settings.minimum_calls}")
    if elapsed_s < settings.minimum_s:
        return Verdict("wait", f"{max(elapsed_s, 0):.0f} s in use; expected at least {settings.minimum_s:.0f} s")
    return Verdict("commit", f"{counters.calls} calls in {elapsed_s:.0f} s, every share within its maximum")


def thresholds(manifests: TrialSettings | None, overrides: Mapping[str, float]) -> TrialSettings:
    """Return the manifest's settings, or the defaults, with what the device's own settings say instead.

    Raises:
        ConfigError: an override that is no setting, or of the wrong type or range.
    """
    values = msgspec.structs.asdict(manifests or TrialSettings())
    for name in overrides:
        if name not in values:
            raise ConfigError(
                f"trial has no setting {name!r}; expected one of {', '.join(values)}",
                fix="correct the device's settings",
            )
    try:
        return msgspec.convert({**values, **overrides}, TrialSettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"trial: {error}", fix="correct the device's settings") from error


def proves_over(bad: int, of: int, maximum: float) -> bool:
    """Return whether so many bad calls prove, at any time of looking, that their true share is over `maximum`."""
    if maximum >= 1 or bad == 0:
        return False
    if maximum <= 0:
        return True
    return log_evidence(bad, of, maximum) >= -math.log(FALSE_ALARM)


def log_evidence(bad: int, of: int, maximum: float) -> float:
    """Return the natural logarithm of the likelihood ratio: shares over `maximum`, evenly averaged, against `maximum`.

    The integral of s^bad (1 - s)^(of - bad) from `maximum` to 1 is an incomplete beta function, and that is a binomial
    distribution of one more trial.

    Args:
        bad: 0 to `of`.
        of: calls.
        maximum: between 0 and 1, both excluded.
    """
    above = binomial.at_most(bad, of + 1, maximum)
    if above <= 0:
        return -math.inf
    log_beta = math.lgamma(bad + 1) + math.lgamma(of - bad + 1) - math.lgamma(of + 2)
    log_at_maximum = bad * math.log(maximum) + (of - bad) * math.log1p(-maximum)
    return log_beta + math.log(above) - math.log1p(-maximum) - log_at_maximum


def _proven(counters: Counters, settings: TrialSettings, shares: list[_Share]) -> Iterator[str]:
    cause = f"; the last problem: {counters.last_problem}" if counters.last_problem else ""
    if counters.load_failures > settings.maximum_load_failures:
        yield f"{counters.load_failures} failed loads; expected at most {settings.maximum_load_failures}{cause}"
    restarts = most_within(counters.restarts, MINUTE_S)
    if restarts > settings.maximum_restarts_per_minute:
        yield (
            f"{restarts} processes ended without a clean close within a minute; "
            f"expected at most {settings.maximum_restarts_per_minute}{cause}"
        )
    if counters.unusable:
        yield f"an app cannot work with it{cause}"
    if counters.calls == counters.refused >= FEWEST_BAD_CALLS:
        yield f"the input of all {counters.calls} calls was refused; app and version do not fit{cause}"
    for share in shares:
        if share.is_proven_over:
            yield f"{share}{cause}"


def _shares(counters: Counters, settings: TrialSettings) -> Iterator[_Share]:
    # An app may report a failure of its own without a call, or several for one.
    calls = max(counters.calls, counters.bad_calls)
    yield _Share("calls failed", counters.bad_calls, calls, settings.maximum_failure_rate)
    yield _Share(
        "calls were over the latency budget", counters.over_budget, counters.calls, settings.maximum_over_budget_rate
    )
    yield _Share("answers were empty", counters.empty, counters.answers, settings.maximum_empty_rate)


def _at_the_deadline(counters: Counters, over: _Share | None, *, is_readable: bool) -> Verdict:
    if over is not None:
        return Verdict("roll back", f"at the deadline {over}")
    if not is_readable:
        return Verdict("roll back", "at the deadline the health counters cannot be read: no evidence of health")
    if not counters.calls:
        return Verdict("commit", "nobody called it until the deadline, and nothing speaks against it")
    return Verdict("commit", f"{counters.calls} calls until the deadline, every share within its maximum")
