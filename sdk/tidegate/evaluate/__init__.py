"""Is a model good enough? Metrics with bounds, parity of variants, acceptance criteria."""

from tidegate.evaluate.criteria import CRITERIA_ASSET, Criteria, Criterion, parse_criteria, read_criteria
from tidegate.evaluate.data import EvaluationSet, read_evaluation_set
from tidegate.evaluate.evaluating import Options, evaluate
from tidegate.evaluate.measurements import Measurement, read_measurements
from tidegate.evaluate.recording import recorded
from tidegate.evaluate.report import Evaluation, Judgement, decode, encode

__all__ = [
    "CRITERIA_ASSET",
    "Criteria",
    "Criterion",
    "Evaluation",
    "EvaluationSet",
    "Judgement",
    "Measurement",
    "Options",
    "decode",
    "encode",
    "evaluate",
    "parse_criteria",
    "read_criteria",
    "read_evaluation_set",
    "read_measurements",
    "recorded",
]
