"""A language code becomes part of file names: nothing but letters, digits, - and _."""

from __future__ import annotations

import pytest

from xlmr_flax.tasks import get_task
from xlmr_flax.tasks.base import TaskError


@pytest.mark.parametrize('code', ['*', '?eu', '../x', 'de/..', '', 'de\n', '[a-z]'])
@pytest.mark.parametrize('task', ['udpos', 'tatoeba', 'xnli'])
def test_a_pattern_or_path_is_no_language(task: str, code: str) -> None:
    with pytest.raises(TaskError):
        get_task(task).local_code(code)
