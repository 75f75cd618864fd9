"""A two-layer random encoder on the embedded world: the whole pipeline in seconds on a CPU, without data or downloads.

Use it for tests and to try a change locally. The scores mean nothing, since the encoder is random.
"""

from ml_collections import ConfigDict

from xlmr_flax.config import defaults


def get_config() -> ConfigDict:
    config = ConfigDict(defaults())
    config.name = 'tiny'
    config.title = 'Tiny random encoder on the embedded world'
    config.encoder.source = 'random:tiny'
    config.intermediate = ('none', 'world_nli')
    config.targets = ('world_pairs', 'world_retrieval')
    config.recipe.steps = 6
    config.recipe.batch_size = 8
    config.recipe.max_length = 64
    config.recipe.lengths = (64,)
    config.recipe.log_every = 2
    config.recipe.eval_examples = 32
    config.recipe.optimizer.learning_rate = 1e-3
    config.evaluation.max_examples = 16
    config.evaluation.max_length = 64
    config.evaluation.languages = ConfigDict({'world_pairs': ('en', 'de', 'ru'), 'world_retrieval': ('de', 'ru')})
    config.tensorboard = False
    return config
