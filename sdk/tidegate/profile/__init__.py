"""How evaluation data are distributed, and whether what a device sees has drifted from it. Needs numpy only."""

from tidegate.profile.document import (
    Alarm,
    CategoryFeature,
    Feature,
    NumberFeature,
    Profile,
    Tail,
    TensorKind,
    TensorRule,
    decode,
    encode,
    json_schema,
)
from tidegate.profile.judging import Correction, FeatureResult, StatisticResult, Verdict, judge, overall
from tidegate.profile.making import Options, profile_from
from tidegate.profile.summary import Summary
from tidegate.profile.window import Window

__all__ = [
    "Alarm",
    "CategoryFeature",
    "Correction",
    "Feature",
    "FeatureResult",
    "NumberFeature",
    "Options",
    "Profile",
    "StatisticResult",
    "Summary",
    "Tail",
    "TensorKind",
    "TensorRule",
    "Verdict",
    "Window",
    "decode",
    "encode",
    "json_schema",
    "judge",
    "overall",
    "profile_from",
]
