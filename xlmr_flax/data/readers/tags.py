"""Readers of tagging files: two columns, CoNLL-U, UNER's IOB2, C&C supertags, CCGbank's AUTO files.

Every reader yields one row per sentence: words, tags (absent if the file has none) and lines (the line of each word).
The line of the row is that of its first word. A line that cannot be read makes its sentence a Problem, not the next
one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from xlmr_flax.data.readers.text import Problem, Row, Rows, read_lines, read_plain_lines
from xlmr_flax.tasks.base import Table
from xlmr_flax.util.errors import quote

# The tag of a multi-word token if several of its words are equally near the root: the first of these tags
# (ud-conversion-tools: conllu_to_conll.py, as XTREME's scripts/download_data.sh calls it).
_RANK = (
    'VERB', 'NOUN', 'PROPN', 'PRON', 'ADJ', 'NUM', 'ADV', 'INTJ', 'AUX', 'ADP', 'DET', 'PART', 'CCONJ', 'SCONJ', 'X',
    'PUNCT',
)  # fmt: skip
_RANK_BY_LANGUAGE = {
    'es': ('VERB', 'AUX', 'PRON', 'ADP', 'DET'),
    'fr': ('VERB', 'AUX', 'PRON', 'NOUN', 'ADJ', 'ADV', 'ADP', 'DET', 'PART', 'SCONJ', 'CONJ'),
    'it': ('VERB', 'AUX', 'ADV', 'PRON', 'ADP', 'DET', 'INTJ'),
}
_LEAF = re.compile(r'<L (\S+) (\S+) (\S+) (\S+) (\S+)>')

_PREFIX = re.compile(r'(?:[a-z]{2,3}(?:-[a-z]+)*|simple):')  # simple: Wikipedia in Simple English
_DOCUMENT = re.compile(r'-DOCSTART-(?:[ \t]+O)?')
_OTHER_SEPARATOR = re.compile(r'.*[,;|\s](?:O|[A-Z]{1,5}(?:-[A-Za-z]+)?)')
_HEAD = re.compile(r'[0-9]{1,9}')
_EMPTY_NODE = re.compile(r'[0-9]+\.[0-9]+')

Lines = list[tuple[int, str]]  # (line from 1, text)
Span = tuple[int, int, str, int]  # (first word, last word, form, line) of a multi-word token
Word = tuple[str, str, tuple[int, ...], int]  # (form, tag, heads, line)


def read_conll(path: Path, table: Table) -> Rows:
    """Reads two-column files: a word and its tag a line, separated by a tab or (Masakhane) a space. Blank lines end
    sentences.

    XTREME's public test files contain words only; the first line of a file decides whether it has tags. Lines
    '-DOCSTART-' (CoNLL's mark of a new document) are skipped. A language prefix such as 'en:' on all words of a file
    (WikiANN as its authors publish it) is removed, as in XTREME's panx_preprocess; in such a file, a line without one
    is a Problem. So are lines with another separator (`Ada,B-PER`).
    """
    tagged: bool | None = None
    marked = ([each for each in block if not _DOCUMENT.fullmatch(each[1])] for block in _blocks(path))
    blocks = [block for block in marked if block]
    prefixed, other = _has_prefixes(blocks), _has_other_separator(blocks)
    for block in blocks:
        words, tags, problem = [], [], None
        for number, whole in block:
            prefix = _PREFIX.match(whole) if prefixed else None
            line = whole[prefix.end() :] if prefix else whole
            word, _, tag = line.partition('\t') if '\t' in line else line.rpartition(' ')
            if '\t' not in line and ' ' not in line:
                word, tag = line, ''
            if tagged is None:
                tagged = bool(tag)
            if not word or bool(tag) != tagged or '\t' in tag or ('\t' not in line and ' ' in word):
                expected = 'a word and a tag are' if tagged else 'a word alone is'
                problem = problem or (number, Problem(f'{expected} expected, not {quote(whole)}'))
            elif prefixed and not prefix:
                reason = f"a language prefix such as 'en:' is expected, as other lines have it, not {quote(whole)}"
                problem = problem or (number, Problem(reason))
            elif other and _OTHER_SEPARATOR.fullmatch(whole):
                reason = f'a tab or a blank is expected between the word and its tag, not {quote(whole)}'
                problem = problem or (number, Problem(reason))
            words.append(word)
            tags.append(tag.strip())
        yield problem or (block[0][0], _sentence(words, tags if tagged else None, [number for number, _ in block]))


def _has_prefixes(blocks: list[Lines]) -> bool:
    """Whether the words of a file have language prefixes (such as 'en:'): half of its lines begin with one, or all
    lines of a sentence of three words or more with the same one. Single words with a colon occur in any text."""
    found = [[match[0] if (match := _PREFIX.match(line)) else '' for _, line in block] for block in blocks]
    if any(len(each) > 2 and each[0] and len(set(each)) == 1 for each in found):
        return True
    prefixes = [prefix for each in found for prefix in each]
    return 0 < len(prefixes) <= 2 * sum(map(bool, prefixes))


def _has_other_separator(blocks: list[Lines]) -> bool:
    """Whether half of the lines of a file without tabs and blanks end in a comma (or ; or | or a no-break
    space) and a tag."""
    lines = [line for block in blocks for _, line in block]
    if any('\t' in line or ' ' in line for line in lines):
        return False
    return 0 < len(lines) <= 2 * sum(bool(_OTHER_SEPARATOR.fullmatch(line)) for line in lines)


def read_conllu(path: Path, table: Table) -> Rows:
    """Reads CoNLL-U as XTREME prepares it: words and UPOS tags, with multi-word tokens as one word.

    A multi-word token has its surface form. Its tag is that of its word with the fewest ancestors over HEAD and DEPS;
    among equals, that of the word whose tag comes first in a list of tags (ud-conversion-tools). Empty nodes (8.1) are
    skipped. Zero-width non-joiners and blanks are removed from words; a word of nothing else is a Problem. So is a HEAD
    or DEPS that does not name a word of the sentence ('_' = none). Sentences in which all words or all but one are
    '_' (text withheld) are dropped (XTREME: utils_preprocess.py, udpos_preprocess). The file name begins with the
    language code ('en_ewt-ud-...').
    """
    rank = _RANK_BY_LANGUAGE.get(path.name.split('_')[0], _RANK)
    for block in _blocks(path):
        tokens = [(number, line) for number, line in block if not line.startswith('#')]
        if not tokens:
            continue
        sentence = _conllu_sentence(tokens, rank)
        if isinstance(sentence, tuple):
            yield sentence
        elif sentence['words'].count('_') == 0 or sentence['words'].count('_') < len(sentence['words']) - 1:
            yield tokens[0][0], sentence


def read_iob2(path: Path, table: Table) -> Rows:
    """Reads Universal NER's .iob2 files: comment lines (#), then a line per word with at least three columns, separated
    by tabs: number, word, tag. Further columns are ignored."""
    for block in _blocks(path):
        tokens = [(number, line.split('\t')) for number, line in block if not line.startswith('#')]
        bad = next((number for number, cells in tokens if len(cells) < 3 or not all(cells[:3])), None)
        if bad is not None:
            yield bad, Problem('a number, a word and a tag are expected, separated by tabs')
        elif tokens:
            numbers = [number for number, _ in tokens]
            yield numbers[0], _sentence([cells[1] for _, cells in tokens], [cells[2] for _, cells in tokens], numbers)


def read_stagged(path: Path, table: Table) -> Rows:
    """Reads C&C's .stagged files: one sentence a line, as word|POS|supertag separated by blanks."""
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        parts = [token.rsplit('|', 2) for token in line.split()]
        bad = next((part for part in parts if len(part) != 3 or not all(part)), None)
        if bad is not None:
            yield number, Problem(f'word|POS|supertag is expected, not {"|".join(bad)!r}')
            continue
        yield number, _sentence([part[0] for part in parts], [part[2] for part in parts], [number] * len(parts))


def read_ccgbank(path: Path, table: Table) -> Rows:
    """Reads CCGbank's AUTO files: a line ID=... and then a derivation with leaves (category, POS, POS, word, ...).

    The word and the tag are fields 4 and 1 of a leaf (jiant v1: scripts/ccg/ccg_proc.py).
    """
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith('ID='):
            continue
        leaves = _LEAF.findall(line)
        if not leaves or not line.startswith('(<'):
            yield number, Problem('a derivation (<T ...> ...) with leaves <L ...> is expected')
            continue
        yield number, _sentence([leaf[3] for leaf in leaves], [leaf[0] for leaf in leaves], [number] * len(leaves))


def _sentence(words: list[str], tags: list[str] | None, lines: list[int]) -> Row:
    row: Row = {'words': words, 'lines': lines}
    return row if tags is None else row | {'tags': tags}


def _blocks(path: Path) -> Iterator[Lines]:
    """Yields the blocks of consecutive lines that blank lines separate."""
    block: Lines = []
    for number, line in enumerate(read_plain_lines(path), 1):
        # Not strip() without arguments: a word may consist of another white-space character.
        if line.strip(' \t'):
            block.append((number, line.rstrip(' \t') if '\t' in line.rstrip(' \t') else line.strip(' ')))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _conllu_sentence(tokens: Lines, rank: tuple[str, ...]) -> Row | tuple[int, Problem]:
    words: dict[int, Word] = {}
    fused: list[Span] = []
    for number, line in tokens:
        fields = line.split('\t')
        if len(fields) != 10:
            return number, Problem(f'{len(fields)} fields, expected 10')
        ident, form = fields[0], fields[1].replace('\u200c', '').replace(' ', '')
        if _EMPTY_NODE.fullmatch(ident):
            continue
        if not form:
            return number, Problem(f'word {quote(ident)} has no form: {quote(fields[1])}')
        if match := re.fullmatch(r'([0-9]{1,9})-([0-9]{1,9})', ident):
            fused.append((int(match[1]), int(match[2]), form, number))
        elif ident == str(len(words) + 1):
            heads = _heads(fields[6], fields[8])
            if isinstance(heads, Problem):
                return number, heads
            words[int(ident)] = (form, fields[3], heads, number)
        else:
            return number, Problem(f'id {ident!r} is out of order, expected {len(words) + 1}')
    if not words:
        return tokens[0][0], Problem('a sentence without words')
    for _, _, heads, number in words.values():
        if max(heads, default=0) > len(words):
            return number, Problem(f'head {max(heads)} is not one of the {len(words)} words')
    return _joined(words, fused, rank)


def _joined(words: dict[int, Word], fused: list[Span], rank: tuple[str, ...]) -> Row | tuple[int, Problem]:
    """The sentence with each multi-word token as one word; a Problem if a token's words are not there or shared."""
    kept = dict(words)
    free = 1
    for start, end, form, number in sorted(fused):
        if not 1 <= start <= end <= len(words):
            return number, Problem(f'multi-word token {start}-{end} of {len(words)} words')
        if start < free:
            return number, Problem(f'multi-word token {start}-{end} shares word {start} with another one')
        free = end + 1
        head = _span_head(range(start, end + 1), words, rank)
        for k in range(start, end + 1):
            del kept[k]
        kept[head] = (form, *words[head][1:])
    order = sorted(kept)
    return _sentence([kept[k][0] for k in order], [kept[k][1] for k in order], [kept[k][3] for k in order])


def _heads(head: str, deps: str) -> tuple[int, ...] | Problem:
    """The heads of a word: HEAD and the heads of the enhanced graph in DEPS ('6:nsubj|9:nsubj'), '_' = none. An empty
    node (8.1) of DEPS is not a head."""
    found = set()
    for name, text in (('HEAD', head), *(('DEPS', each.partition(':')[0]) for each in deps.split('|'))):
        if _HEAD.fullmatch(text):
            found.add(int(text))
        elif text != '_' and not (name == 'DEPS' and _EMPTY_NODE.fullmatch(text)):
            return Problem(f'the number of a word is expected in {name}, not {quote(text)}')
    return tuple(found)


def _span_head(span: range, words: dict[int, Word], rank: tuple[str, ...]) -> int:
    """The word that represents a multi-word token: among its words with the fewest ancestors in the graph of HEAD and
    DEPS, the one whose tag comes first in `rank` (ud-conversion-tools: lib/conll.py)."""

    def ancestors(word: int) -> int:
        seen: set[int] = set()
        todo = [*words[word][2]]
        while todo:
            head = todo.pop()
            if head != word and head not in seen:
                seen.add(head)
                todo += words[head][2] if head in words else ()
        return len(seen)

    counts = {k: ancestors(k) for k in span}
    highest = [k for k in span if counts[k] == min(counts.values())]
    return min(highest, key=lambda k: rank.index(words[k][1]) if words[k][1] in rank else len(rank))
