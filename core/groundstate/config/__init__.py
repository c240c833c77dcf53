"""A run's config: TOML files that extend each other and overrides in, pydantic models out, all faults at once."""

from groundstate.config.assemble import LayerParts, Parts, assemble
from groundstate.config.layers import Overrides, Provenance
from groundstate.config.load import LoadedConfig, LoadedLayer, load_config
from groundstate.config.models import (
    EvaluationConfig,
    LayerConfig,
    ModelConfig,
    OutputConfig,
    RunConfig,
)
from groundstate.config.saved import load_model_tables, model_tables, pruned_tables, stack_tables
from groundstate.config.schema import json_schema, registry_schema
from groundstate.config.tables import PluginTable
from groundstate.config.write import config_changes, config_hash, dump_toml
from groundstate.learning import PhaseConfig

__all__ = [
    "EvaluationConfig",
    "LayerConfig",
    "LayerParts",
    "LoadedConfig",
    "LoadedLayer",
    "ModelConfig",
    "OutputConfig",
    "Overrides",
    "Parts",
    "PhaseConfig",
    "PluginTable",
    "Provenance",
    "RunConfig",
    "assemble",
    "config_changes",
    "config_hash",
    "dump_toml",
    "json_schema",
    "load_config",
    "load_model_tables",
    "model_tables",
    "pruned_tables",
    "registry_schema",
    "stack_tables",
]
