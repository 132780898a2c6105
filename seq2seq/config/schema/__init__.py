"""Every setting: its type, its range, its meaning. Values live in `configs/*.yaml`, never here.

No field has a default: a value that is given nowhere is an error. `config.to_config()` fills these
classes and checks the ranges that stand in the metadata of their fields.
"""

from seq2seq.config.schema.attention import (
    AnyAttentionConfig,
    AttentionConfig,
    AttentionKind,
    HardConfig,
    HardInference,
    LocalConfig,
    MultiHeadConfig,
)
from seq2seq.config.schema.data import (
    DataConfig,
    GrammarConfig,
    OnBadLine,
    PieceModel,
    SentencePieceConfig,
    TokenizerKind,
    WordsConfig,
)
from seq2seq.config.schema.inference import (
    DecodeConfig,
    EvaluateConfig,
    Examples,
)
from seq2seq.config.schema.model import (
    Backend,
    InitialWeights,
    ModelConfig,
    Readout,
    Reset,
    StateWord,
)
from seq2seq.config.schema.run import (
    Config,
    Device,
    LoggingConfig,
    Stage,
)
from seq2seq.config.schema.training import (
    AdadeltaConfig,
    AdamConfig,
    BatchOrder,
    ConstantConfig,
    DecayConfig,
    Normalize,
    OnOutOfMemory,
    OptimizerKind,
    PlateauConfig,
    Precision,
    SchedulerKind,
    SelectBy,
    TrainerConfig,
)

__all__ = [
    "AdadeltaConfig",
    "AdamConfig",
    "AnyAttentionConfig",
    "AttentionConfig",
    "AttentionKind",
    "Backend",
    "BatchOrder",
    "Config",
    "ConstantConfig",
    "DataConfig",
    "DecayConfig",
    "DecodeConfig",
    "Device",
    "EvaluateConfig",
    "Examples",
    "GrammarConfig",
    "HardConfig",
    "HardInference",
    "InitialWeights",
    "LocalConfig",
    "LoggingConfig",
    "ModelConfig",
    "MultiHeadConfig",
    "Normalize",
    "OnBadLine",
    "OnOutOfMemory",
    "OptimizerKind",
    "PieceModel",
    "PlateauConfig",
    "Precision",
    "Readout",
    "Reset",
    "SchedulerKind",
    "SelectBy",
    "SentencePieceConfig",
    "Stage",
    "StateWord",
    "TokenizerKind",
    "TrainerConfig",
    "WordsConfig",
]
