"""The strict schema of the one YAML file, and its loading. Never imports torch."""

from pipelines.config.load import dump_config, explain_config, load_config
from pipelines.config.schema import Config

__all__ = ["Config", "dump_config", "explain_config", "load_config"]
