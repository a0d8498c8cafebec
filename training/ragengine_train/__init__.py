"""Training RAG as the paper does it (Lewis et al. 2020, section 2.4).

:func:`train` is what `ragengine train CONFIG.toml` runs.
"""

from ragengine.errors import DependencyError

try:
    from ragengine_train.config import TrainConfig
    from ragengine_train.config_file import read_config
    from ragengine_train.consolidate import consolidate
    from ragengine_train.data_check import Finding, check_data
    from ragengine_train.data_convert import ConvertReport, convert_questions
    from ragengine_train.pipeline import train
    from ragengine_train.progress import TrainProgress
    from ragengine_train.report import StageResult, TrainResult
except ModuleNotFoundError as reason:
    raise DependencyError(
        f'Training needs the package {reason.name}; run pip install "ragengine[train]".'
    ) from reason

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
