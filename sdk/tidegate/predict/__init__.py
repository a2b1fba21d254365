"""Run a bundle on every row of a file, a directory or a distributed data set."""

from tidegate.predict.finishing import errors_path
from tidegate.predict.mapping import BundleMapper
from tidegate.predict.predicting import PredictSummary, predict
from tidegate.predict.settings import PredictSettings

__all__ = ["BundleMapper", "PredictSettings", "PredictSummary", "errors_path", "predict"]
