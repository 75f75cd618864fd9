"""The official numbers of rows: held against a list of published files, and the splits that have none against the docs.

The list is that of test_reference.py. Its cells are prose with numbers, in a form of its own for each dataset.
"""

from __future__ import annotations

import re
from pathlib import Path

from xlmr_flax.data.split import Split
from xlmr_flax.download import facts
from xlmr_flax.tasks import all_tasks
from xlmr_flax.tasks.base import Table

Reference = dict[str, dict[str, str]]
DOCS = Path(__file__).parents[2] / 'docs' / 'downloads.md'
SPLITS = (('train', 'trn'), ('dev', 'val', 'trial'), ('test',))


def numbers(text: str) -> list[int]:
    return [int(each.replace(',', '')) for each in re.findall(r'\d[\d,]*', text)]


def split_of(path: str) -> int:
    """0 for a training file, 1 for a development file, 2 for a test file, and for a name that says neither."""
    name = path.rsplit('/', 1)[-1]
    return next((i for i, words in enumerate(SPLITS) if any(word in name for word in words)), 2)


def sources_of(path: str) -> list[facts.Source]:
    """The published files of a path, of the first dataset that has it; without copies if there are others."""
    known = [source for source in facts.sources() if is_of(path, source)]
    first = [source for source in known if source.group == known[0].group and not source.use]
    return first or known


def is_of(path: str, source: facts.Source) -> bool:
    return path in source.targets or ('*' in path and any(map(facts.pattern(path).fullmatch, source.targets)))


def cell(reference: Reference, source: facts.Source) -> str:
    return reference[source.urls[0]]['rows_train_dev_test']


def expected(path: str, reference: Reference) -> int:
    """The number of rows that the list has for a path."""
    split = split_of(path)
    if path.startswith('intermediate/siqa/socialIQa_v1.4'):  # "as above": the line of the other archive
        path = f'intermediate/siqa/{SPLITS[split][0]}.jsonl'
    sources = sources_of(path)
    text = cell(reference, sources[0])
    group = sources[0].group
    if group == 'udpos_xtremer':  # one line a file
        return sum(numbers(cell(reference, source))[0] for source in sources)
    if group == 'udpos':
        [found] = re.findall(rf'\b{path.split("/")[-1][:2]} ([\d-]+)/([\d-]+)/([\d-]+)', text)
        return int(found[split])
    if group == 'panx':
        code = path[-6:-4]
        [counts] = [part.split(':')[0] for part in text.split('; ') if code in part.split(':')[1].split()]
        return numbers(counts)[split]
    if group == 'mlqa':
        context, question = re.findall(r'(?:context|question)-([a-z]{2})', path)
        [found] = re.findall(rf'\b{context if question == "en" else question} ([\d,]+)/([\d,]+)', text)
        return numbers(found[split - 1])[0]
    if group == 'tydiqa':
        [found] = re.findall(rf'\b{path.split(".")[-3]} ([\d,]+)', text)
        return numbers(found)[0]
    if group == 'anli':
        [counts] = re.findall(rf'{path.split("/")[-2]} (\S+)', text)
        return numbers(counts)[split]
    if group == 'xnli':
        return numbers(text)[split - 1]
    if group == 'fracas':
        return numbers(text)[-1]
    if group == 'mnli' and 'mismatched' in path:
        return numbers(text)[2]
    if group == 'snli':
        text = text.split('; ')[1]  # with a label
    parts = text.split(' / ')
    return numbers(parts[split] if len(parts) == 3 else text)[0]


def is_listed(path: str, reference: Reference) -> bool:
    """False for MLQA's pairs of two languages other than English, whose numbers are those of its dataset card, and for
    datasets that are not in the list; test_data_here.py has their numbers."""
    return not is_pair(path) and any(url in reference for source in sources_of(path) for url in source.urls)


def is_pair(path: str) -> bool:
    codes = re.findall(r'MLQA_V1/.*context-([a-z]{2})-question-([a-z]{2})', path)
    return bool(codes) and codes[0][0] != codes[0][1] and 'en' not in codes[0]


def test_numbers_of_rows_are_those_of_the_list(reference: Reference) -> None:
    known = {path: rows for path, rows in facts.official_rows().items() if is_listed(path, reference)}
    assert len(known) > 750
    assert known == {path: expected(path, reference) for path in known}
    languages = [(path, rows) for path, rows in known.items() if '/tydiqa.goldp.' in path]
    for source in (source for source in facts.sources() if source.group == 'tydiqa'):
        own = sum(rows for path, rows in languages if path in source.targets)
        assert own == numbers(cell(reference, source))[0], 'the sum over the languages'


def test_mlqas_pairs_have_as_many_rows_in_both_directions() -> None:
    """Both directions ask the questions that two languages share, of which there are fewer than of either language."""
    known = facts.official_rows()
    pairs = {path for path in known if is_pair(path)}
    assert len(pairs) == 2 * 6 * 5
    for path in pairs:
        [(context, question)] = re.findall(r'context-([a-z]{2})-question-([a-z]{2})', path)
        other = path.replace(f'{context}-question-{question}', f'{question}-question-{context}')
        own = [
            path.replace(f'{context}-question-{question}', f'{code}-question-{code}') for code in (context, question)
        ]
        assert known[path] == known[other]
        assert known[path] < min(known[each] for each in own)


def without_number() -> dict[str, dict[str, tuple[str, ...]]]:
    """{task: {split: its languages in which no file has an official number of rows}}."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, task in all_tasks().items():
        for split in task.splits if not name.startswith('world_') else ():
            codes = tuple(code for code in task.split_languages(split) if not has_number(Split(task, code, split)))
            if codes:
                found.setdefault(name, {})[split] = codes
    return found


def has_number(split: Split) -> bool:
    """Whether a file that a split may read, or its gold pairs, has an official number of rows."""
    known, task = facts.official_rows(), split.task

    def is_known(table: Table) -> bool:
        code = task.local_code(split.language, split.name)
        return all(path.replace('{language}', code) in known for path in (table.path, *table.also))

    tables = [table for table in task.sources(split.name) if isinstance(table, Table)]
    gold = [task.gold[split.name]] if split.name in task.gold else []
    asked = tables[:1] if task.embeds else tables
    return any(map(is_known, gold)) or all(any(map(is_known, (each, *each.alternatives))) for each in asked)


def test_the_docs_name_the_splits_without_an_official_number() -> None:
    lines = DOCS.read_text(encoding='utf-8').split('## Splits without an official number')[1].split('\n## ')[0]
    documented: dict[str, dict[str, tuple[str, ...]]] = {}
    for line in lines.splitlines():
        cells = [cell.strip() for cell in line.split('|')[1:-1]]
        for name in re.findall(r'`(\w+)`', cells[0]) if cells else ():
            task = all_tasks()[name]
            for split in cells[1].split(', '):
                codes = task.split_languages(split) if cells[2] == 'all' else tuple(cells[2].split())
                documented.setdefault(name, {})[split] = codes
    assert documented == without_number()
