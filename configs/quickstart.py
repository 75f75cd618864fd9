"""The quickstart: zero-shot transfer of a real multilingual encoder, with and without an English intermediate task.

It uses the embedded encoder and the embedded world only: no hub, no data root. It has two arms (none, world_nli) and
two targets: world_pos (part-of-speech tags) is fine-tuned in English and evaluated in every language of the world;
world_retrieval needs no training. It has few steps and ends within minutes on two cores: a demonstration, not a study.
"""

from ml_collections import ConfigDict

from xlmr_flax.config import defaults


def get_config() -> ConfigDict:
    config = ConfigDict(defaults())
    config.name = 'quickstart'
    config.title = 'Quickstart: does an English intermediate task help other languages?'
    config.encoder.source = 'embedded'
    config.intermediate = ('none', 'world_nli')
    config.targets = ('world_pos', 'world_retrieval')
    config.recipe.batch_size = 16
    config.recipe.max_length = 64
    config.recipe.lengths = (32, 64)
    config.recipe.steps = 40
    config.recipe.eval_examples = 200
    config.recipe.optimizer.learning_rate = 2e-4
    config.recipe.optimizer.epsilon = 1e-6
    nli = {'steps': 80, 'max_length': 48, 'lengths': (48,), 'optimizer': {'learning_rate': 1e-4}}
    config.recipes = ConfigDict({'world_nli': nli})
    config.evaluation.max_examples = 80
    config.evaluation.max_length = 64
    return config
