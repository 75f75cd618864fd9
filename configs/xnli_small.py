"""MNLI -> XNLI on a small data root: fine-tune in English, evaluate zero-shot in 15 languages.

Data: intermediate/mnli and xtreme/xnli under the data root. The recipe is our own, for a small encoder and few rows:
an encoder with 12 layers of width 384 needs a higher learning rate than the 1e-5 of XLM-R Large. It does not reproduce
the paper's recipe. The heads are those of Hugging Face transformers (encoder.head='hf'), so that the same run is
possible with XLMRobertaForSequenceClassification.
"""

from ml_collections import ConfigDict

from xlmr_flax.config import defaults


def get_config() -> ConfigDict:
    config = ConfigDict(defaults())
    config.name = 'xnli_small'
    config.title = 'XNLI, zero-shot from English, on a small encoder'
    config.encoder.source = 'embedded'
    config.encoder.head = 'hf'
    config.intermediate = ('none',)
    config.targets = ('xnli',)
    config.recipe.steps = 150
    config.recipe.batch_size = 16
    config.recipe.max_length = 128
    config.recipe.optimizer.learning_rate = 1e-4
    config.recipe.optimizer.epsilon = 1e-6
    return config
