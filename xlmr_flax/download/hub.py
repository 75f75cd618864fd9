"""Fetches files of datasets on the Hugging Face hub with huggingface_hub, for --source=hub."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xlmr_flax.download.records import DownloadError, size_of

ENDPOINT_VARIABLE = 'HF_ENDPOINT'
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # status codes after which a request is tried again
_URL = re.compile(r'https://huggingface\.co/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)')


class HubError(DownloadError):
    """Raised if the hub does not provide a file. transient: a later attempt may succeed (too many requests)."""

    def __init__(self, reason: str, transient: bool = False):
        super().__init__(reason)
        self.transient = transient


def can_convert() -> bool:
    """Whether pyarrow, which reads parquet files, is installed."""
    return importlib.util.find_spec('pyarrow') is not None


def parts_of(url: str) -> tuple[str, str, str] | None:
    """(repository, revision, path) of a dataset's file on the hub; None for another URL."""
    match = _URL.fullmatch(url)
    return (match[1], match[2], match[3]) if match else None


def fetch(url: str, path: Path, report: Callable[[int], None], check: Callable[[], None], timeout: float) -> None:
    """Downloads a file of a dataset repository to `path`; continues an interrupted download.

    report: called with the number of bytes so far. check: called at each chunk; what it raises ends the download.
    timeout: seconds for the answer to the first request. HF_ENDPOINT names another server than huggingface.co, and the
    hub's own variables apply (HF_TOKEN, HF_HUB_DOWNLOAD_TIMEOUT). Raises HubError, and OSError for a full disk.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    found = parts_of(url)
    if found is None:
        raise HubError('this is no address of a dataset on the hub')
    repository, revision, name = found
    folder = path.with_name(f'{path.name}.hub')
    logging.getLogger('huggingface_hub.file_download').setLevel(logging.ERROR)  # the caller reports what failed
    try:
        hf_hub_download(
            repository,
            name,
            repo_type='dataset',
            revision=revision,
            local_dir=folder,
            endpoint=os.environ.get(ENDPOINT_VARIABLE) or None,
            etag_timeout=timeout,
            tqdm_class=_bar(report, check),
        )
    except LocalEntryNotFoundError as error:  # no connection, a refused one, or an answer without the hub's headers
        cause = error.__cause__ or error
        raise HubError(_line(cause), transient=not isinstance(cause, OfflineModeIsEnabled)) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, 'status_code', 0)
        raise HubError(_line(error), transient=status in TRANSIENT) from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise HubError(_line(error)) from None  # a body that ends early: the library has tried it again itself
    except Exception as error:
        if not type(error).__module__.startswith(('httpx', 'httpcore', 'huggingface_hub', 'requests')):
            raise
        raise HubError(_line(error)) from None
    os.replace(folder / name, path)
    shutil.rmtree(folder)
    report(size_of(path))


def _bar(report: Callable[[int], None], check: Callable[[], None]) -> Any:
    """A progress bar's class for huggingface_hub that draws nothing and calls `report` and `check`."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **{**options, 'disable': True})
            self.count = int(options.get('initial') or 0)

        def update(self, n: float | None = 1) -> bool | None:
            check()
            self.count += int(n or 0)
            report(self.count)
            return super().update(n)

    return Bar


def _line(error: BaseException) -> str:
    """The first line of an error's message, without request ids."""
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r'\s*\(Request ID:.*', '', text)[:200]
