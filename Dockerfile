# Two images of one code base: `platform` (API, worker, scheduler, migrate) and `operator`.
#   docker build --target platform -t taskflow/platform .
#   docker build --target operator -t taskflow/operator .
# BASE may be any image with Python 3.11 to 3.13 and its venv module; pin it by digest where builds must not change.
ARG BASE=python:3.13-slim-trixie

FROM ${BASE} AS build
SHELL ["/bin/sh", "-euc"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src
# pip lives here and works on the other environments from outside, so that they hold none.
RUN python3 -m venv /opt/build && \
    python3 -m venv --without-pip /opt/taskflow && \
    python3 -m venv --without-pip /opt/operator
COPY requirements/build.txt requirements/platform.txt requirements/operator.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt && \
    /opt/build/bin/pip --python /opt/taskflow/bin/python install --quiet --require-hashes -r requirements/platform.txt
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY core core
COPY api api
COPY worker worker
COPY operator operator
COPY client client
COPY cli cli
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . && \
    /opt/build/bin/pip --python /opt/taskflow/bin/python install --quiet --no-deps --no-index /dist/*.whl

FROM build AS build-operator
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/build/bin/pip --python /opt/operator/bin/python install --quiet --require-hashes -r requirements/operator.txt && \
    /opt/build/bin/pip --python /opt/operator/bin/python install --quiet --no-deps --no-index /dist/*.whl

FROM ${BASE} AS runtime
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="TaskFlow" \
      org.opencontainers.image.description="Durable typed tasks, run by workers that follow the queue" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing is written outside /tmp, so a read-only root with a small volume there is enough.
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp TMPDIR=/tmp
WORKDIR /tmp
USER 65532:65532

FROM runtime AS operator
COPY --from=build-operator /opt/operator /opt/operator
ENV PATH=/opt/operator/bin:$PATH TASKFLOW_PROBE_PORT=8001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "taskflow_core.health"]
CMD ["taskflow", "operator"]

FROM runtime AS platform
COPY --from=build /opt/taskflow /opt/taskflow
ENV PATH=/opt/taskflow/bin:$PATH TASKFLOW_API_HOST=0.0.0.0 TASKFLOW_API_PORT=8000 TASKFLOW_PROBE_PORT=8001
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "taskflow_core.health"]
CMD ["taskflow", "api"]
