"""Training RAG as the paper does it (section 2.4): `ragengine train CONFIG.toml`."""

from ragengine_train.config import TrainConfig, read_config
from ragengine_train.pipeline import train

__all__ = ["TrainConfig", "read_config", "train"]
