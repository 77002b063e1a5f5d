# The OHIF viewer: static files, fetched by npm.
FROM node:20-slim AS viewer
COPY deploy/viewer.sh /
RUN /viewer.sh /viewer

# One image for every part of Triage: the command decides which part a container is.
FROM python:3.11-slim-bookworm

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# torch and numpy bring their own libraries; gdcm and opencv-free MONAI need libgomp.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 triage \
    && install -d -o triage /data

WORKDIR /opt/triage
COPY requirements.lock ./
RUN pip install -r requirements.lock

COPY pyproject.toml README.md LICENSE ./
COPY triage triage
COPY flows flows
COPY model_registry model_registry
RUN pip install --no-deps .
COPY --from=viewer /viewer viewer

USER triage
ENV TRIAGE_DATA_DIRECTORY=/data \
    TRIAGE_MODEL_REGISTRY=/opt/triage/model_registry \
    TRIAGE_VIEWER__PATH=/opt/triage/viewer
VOLUME /data
ENTRYPOINT ["triage"]
CMD ["--help"]
