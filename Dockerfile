# The service with its embedded checkpoint. Nothing is fetched when it runs.
#
#   docker build -t sightline .
#   docker run --rm -p 8000:8000 sightline
#
# For NVIDIA GPUs:
#
#   docker build --build-arg TORCH_INDEX= -t sightline:gpu .
#   docker run --rm --gpus all -p 8000:8000 sightline:gpu
#
# TORCH_INDEX is where torch and torchvision are looked for first: CPU wheels by default. If it is empty or cannot be reached,
# both come from the ordinary package index, whose Linux wheels are CUDA builds; …/whl/cu130 names another CUDA version.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

FROM python:3.11-slim AS build
ARG TORCH_INDEX
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -m venv /venv \
 && if [ -n "$TORCH_INDEX" ] && python -c "import sys, urllib.request; urllib.request.urlopen(sys.argv[1] + '/torch/', timeout=10)" "$TORCH_INDEX"; \
    then /venv/bin/pip install --no-deps --constraint constraints.txt --index-url "$TORCH_INDEX" torch torchvision; \
    else echo "TORCH_INDEX cannot be reached: torch comes from the package index"; fi \
 && /venv/bin/pip install --constraint constraints.txt '.[mcp]' \
 && rm -rf /venv/lib/python*/site-packages/pip /venv/lib/python*/site-packages/setuptools

FROM python:3.11-slim
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SIGHTLINE_HOST=0.0.0.0 \
    SIGHTLINE_PORT=8000 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=/cache
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin sightline \
 && install --directory --owner=10001 /cache
COPY --from=build /venv /venv
WORKDIR /app
COPY LICENSE ./
COPY report report
COPY service service
COPY model model
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['SIGHTLINE_PORT']}/readyz\", timeout=4)"]
CMD ["python", "-m", "service"]
