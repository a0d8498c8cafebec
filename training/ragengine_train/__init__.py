"""Training RAG as the paper does it (Lewis et al. 2020, section 2.4).

:func:`train` is what `ragengine train CONFIG.toml` runs.
"""

from typing import TYPE_CHECKING

from ragengine.lazy_names import lazy_names

if TYPE_CHECKING:
    from ragengine_train.config import TrainConfig
    from ragengine_train.config_file import read_config
    from ragengine_train.consolidation import consolidate
    from ragengine_train.data_check import Finding, check_data
    from ragengine_train.data_convert import ConvertReport, convert_questions
    from ragengine_train.pipeline import train
    from ragengine_train.progress import TrainProgress
    from ragengine_train.report import StageResult, TrainResult

__all__ = [
    "ConvertReport",
    "Finding",
    "StageResult",
    "TrainConfig",
    "TrainProgress",
    "TrainResult",
    "check_data",
    "consolidate",
    "convert_questions",
    "read_config",
    "train",
]

_MODULES = {
    "ConvertReport": "data_convert",
    "Finding": "data_check",
    "StageResult": "report",
    "TrainConfig": "config",
    "TrainProgress": "progress",
    "TrainResult": "report",
    "check_data": "data_check",
    "consolidate": "consolidation",
    "convert_questions": "data_convert",
    "read_config": "config_file",
    "train": "pipeline",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES, "Training needs", "train")
