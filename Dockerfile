# The command adu-depth with all that it needs:
#   docker build -t adu-depth .                                  on a CPU
#   docker build -t adu-depth:cuda --build-arg VARIANT=cuda .    on an NVIDIA GPU
# How it is run: CONTRIBUTING.md, "In a container". Versions are those of scripts/constraints.txt.

ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm

# Triton and torch.compile build small programs where they run.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++=4:12.2.0-3 \
    && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONSTRAINT=/opt/adu-depth/scripts/constraints.txt

WORKDIR /opt/adu-depth
COPY scripts/constraints.txt scripts/constraints.txt

# torch's CUDA build brings its CUDA libraries with it, so both variants stand on the same base; the driver is the host's.
ARG VARIANT=cpu
RUN case "$VARIANT" in \
        cpu) pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu ;; \
        cuda) pip install torch==2.13.0 ;; \
        *) echo "VARIANT: expected cpu or cuda, got $VARIANT" >&2; exit 2 ;; \
    esac

COPY pyproject.toml README.md LICENSE ./
COPY adu_kernels adu_kernels
COPY adu_depth adu_depth
# opencv-python wants the system's libGL; the headless build of the same version does not (as in scripts/setup_env.sh).
# hadolint ignore=DL3013
RUN pip install ".[png,onnx,openvino]" \
    && pip uninstall --yes opencv-python \
    && pip install --no-deps opencv-python-headless==4.12.0.88

# Its own home is writable by whoever runs it: docker run --user "$(id -u):$(id -g)" makes files the caller's.
RUN useradd --uid 1000 --create-home --home-dir /home/adu adu && chmod 1777 /home/adu
USER 1000:1000
ENV HOME=/home/adu
WORKDIR /work

# An image that cannot work is not built: pairs are rendered, and the doctor looks them over.
RUN adu-depth render --count 4 --size 96 160 --output /tmp/pairs && adu-depth doctor /tmp/pairs && rm -r /tmp/pairs

ENTRYPOINT ["adu-depth"]
CMD ["--help"]
