"""Packaging of xlmr_flax. Everything else about tools (ruff, pyright, pytest) is in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = HERE / 'README.md'


def version() -> str:
    """The version, read without importing the package (its dependencies may not be installed yet)."""
    text = (HERE / 'xlmr_flax' / '__init__.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


# jax and flax must be chosen as a pair: flax up to 0.12.8 breaks with jax 0.11.1 and later. Python 3.11 has nothing
# newer than jax 0.10.2 and flax 0.12.8, which run together.
JAX_AND_FLAX = [
    "jax>=0.10,<0.11; python_version < '3.12'",
    "flax>=0.12.8; python_version < '3.12'",
    "jax>=0.10,<0.13; python_version >= '3.12'",
    "flax>=0.12.12; python_version >= '3.12'",
]

setup(
    name='xlmr-flax',
    version=version(),
    description='Zero-shot cross-lingual transfer with intermediate-task training (X-STILTs) in JAX/Flax',
    long_description=README.read_text(encoding='utf-8') if README.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    packages=find_packages(include=['xlmr_flax', 'xlmr_flax.*']),
    package_data={
        'xlmr_flax': ['py.typed', 'data/world/**/*.tsv', 'tasks/**/*.tsv', 'models/*.json', 'download/*.tsv'],
    },
    python_requires='>=3.11,<3.14',
    install_requires=[
        *JAX_AND_FLAX,
        'optax>=0.2.5',
        'orbax-checkpoint>=0.11.25',
        'fsspec>=2024.6',
        'transformers>=5',
        'huggingface_hub>=1.0',
        'tokenizers>=0.22',
        'tensorflow-datasets>=4.9.10',
        # tensorflow-datasets 4.9.10 imports it on every Python but declares it for Python < 3.9 only.
        'importlib_resources>=6',
        'ml-collections>=1.0',
        'absl-py>=2.1',
        'safetensors>=0.6',
        'numpy>=2.0',
        'scipy>=1.13',
        'requests>=2.32',
        'tensorboardX>=2.6.2',
        'matplotlib>=3.9',
    ],
    extras_require={
        'tpu': [
            "jax[tpu]>=0.10,<0.11; python_version < '3.12'",
            "jax[tpu]>=0.10,<0.13; python_version >= '3.12'",
        ],
        # CUDA, cuDNN and NCCL come as packages; the driver is the machine's: 525 or newer for CUDA 12, 580 for CUDA 13.
        'cuda12': [
            "jax[cuda12]>=0.10,<0.11; python_version < '3.12'",
            "jax[cuda12]>=0.10,<0.13; python_version >= '3.12'",
        ],
        'cuda13': [
            "jax[cuda13]>=0.10,<0.11; python_version < '3.12'",
            "jax[cuda13]>=0.10,<0.13; python_version >= '3.12'",
        ],
        # One version: `estimate` reads the text of compiled programs and describes a GPU in a format of XLA's own.
        'estimate-gpu': ['jax[cuda12]==0.10.2'],
        'gcs': ['gcsfs'],
        'hub': ['pyarrow>=17'],
        'torch': ['torch>=2.6'],
        'docs': ['mkdocs-material>=9.5'],
        'notebooks': ['nbclient>=0.10', 'ipykernel>=6.29'],
        'dev': [
            'torch>=2.6',
            'pytest>=8',
            'pytest-xdist>=3.6',
            'hypothesis>=6.100',
            'pyarrow>=17',
            'mkdocs-material>=9.5',
            'ruff>=0.9',
            'pyright[nodejs]>=1.1.390',
            'sentencepiece>=0.2',
            'seqeval>=1.2.2',
            'nbclient>=0.10',
            'ipykernel>=6.29',
        ],
    },
    entry_points={'console_scripts': ['xlmr-flax=xlmr_flax.__main__:main']},
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
)
