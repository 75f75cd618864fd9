"""Reads and writes the tokenizer files of transformers' model directories."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from xlmr_flax.encoders import family_of
from xlmr_flax.encoders.config import EncoderConfig, ModelError
from xlmr_flax.util.tokenizer_file import (
    SpecialTokens,
    TokenizerFileError,
    open_tokenizer,
    read_special_tokens,
    special_tokens,
)


def special_tokens_of(tokenizer: Path) -> SpecialTokens:
    """The special tokens of a tokenizer.json. Raises ModelError."""
    try:
        return read_special_tokens(tokenizer)
    except TokenizerFileError as e:
        raise ModelError(str(e)) from None


def save_tokenizer(directory: Path, tokenizer: Path, config: EncoderConfig) -> None:
    """Writes tokenizer.json and the two small files that let AutoTokenizer open it unchanged.

    Its handling of white space is that of this package (util/tokenizer_file.py). Raises ModelError for a file that
    cannot be read.
    """
    try:
        loaded, changed = open_tokenizer(tokenizer)
        if changed:
            loaded.save(str(directory / 'tokenizer.json'))
        else:
            shutil.copyfile(tokenizer, directory / 'tokenizer.json')
        found = special_tokens(loaded, str(tokenizer))
    except TokenizerFileError as e:
        raise ModelError(str(e)) from None
    roles = {
        'bos_token': found.bos,
        'cls_token': found.bos,
        'eos_token': found.eos,
        'sep_token': found.eos,
        'pad_token': found.pad,
        'unk_token': found.unk,
        'mask_token': found.mask,
    }
    special = {role: loaded.id_to_token(number) for role, number in roles.items() if number is not None}
    # Not XLMRobertaTokenizer: for that class, transformers 5 builds its own normalizer and pre-tokenizer and ignores
    # those of the file.
    settings: dict[str, Any] = special | {
        'tokenizer_class': 'PreTrainedTokenizerFast',
        'model_max_length': config.max_length,
    }
    if inputs := family_of(config).model_inputs:
        settings['model_input_names'] = list(inputs)
    for name, value in (('tokenizer_config.json', settings), ('special_tokens_map.json', special)):
        (directory / name).write_text(json.dumps(value, indent=2, sort_keys=True) + '\n', encoding='utf-8')
