"""MNLI -> XNLI on a small data root: fine-tune in English, evaluate zero-shot in 15 languages.

Data: intermediate/mnli and xtreme/xnli under the data root. The recipe is ours, chosen for a small encoder and few
rows (a 12-layer, 384-wide encoder needs a higher learning rate than XLM-R Large's 1e-5); it is no reproduction of the
paper's. Heads are transformers' (encoder.head='hf'), so that the same run can be made with
XLMRobertaForSequenceClassification.
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
