# Two images of one code base: `platform` (API, worker, scheduler, migrate) and `operator`.
#   docker build --target platform -t taskflow/platform .
#   docker build --target operator -t taskflow/operator .
# BASE may be any image with Python 3.11 to 3.13 and its venv module; pin it by digest where builds must not change.
# All else is fixed by hashes, and so are the compiled files: they say by what they were made, not when.
ARG BASE=python:3.13-slim-trixie

# pip lives here and works on the environments of the images from outside, so that they hold none.
FROM ${BASE} AS tools
SHELL ["/bin/sh", "-euc"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
WORKDIR /src
COPY requirements/build.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/build && \
    /opt/build/bin/pip install --quiet --require-hashes -r requirements/build.txt

FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY core core
COPY api api
COPY worker worker
COPY operator operator
COPY client client
COPY cli cli
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist .

FROM tools AS environment
ENV INSTALL="/opt/build/bin/pip --python /opt/taskflow/bin/python install --quiet --no-compile"
ENV COMPILE="/opt/taskflow/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash"
RUN python3 -m venv --without-pip /opt/taskflow

# What others wrote and what we wrote are layers of their own: a new version of ours is 3 MB.
FROM environment AS platform-dependencies
COPY requirements/platform.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    $INSTALL --require-hashes -r requirements/platform.txt && \
    $COMPILE /opt/taskflow/lib

FROM environment AS operator-dependencies
COPY requirements/operator.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    $INSTALL --require-hashes -r requirements/operator.txt && \
    $COMPILE /opt/taskflow/lib

FROM environment AS ours
WORKDIR /opt/taskflow
COPY --from=wheel /dist /dist
RUN $INSTALL --no-deps --no-index /dist/*.whl && \
    $COMPILE lib/python3*/site-packages/taskflow_* && \
    mkdir /ours && cp -a --parents bin/taskflow lib/python3*/site-packages/taskflow_* /ours

FROM ${BASE} AS runtime
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="TaskFlow" \
      org.opencontainers.image.description="Durable typed tasks, run by workers that follow the queue" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Nothing is written outside /tmp, so a read-only root with a small volume there is enough.
ENV PATH=/opt/taskflow/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp TMPDIR=/tmp
WORKDIR /tmp
USER 65532:65532

FROM runtime AS operator
COPY --from=operator-dependencies /opt/taskflow /opt/taskflow
COPY --from=ours /ours /opt/taskflow
ENV TASKFLOW_PROBE_PORT=8001
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "taskflow_core.health"]
CMD ["taskflow", "operator"]

FROM runtime AS platform
COPY --from=platform-dependencies /opt/taskflow /opt/taskflow
COPY --from=ours /ours /opt/taskflow
ENV TASKFLOW_API_HOST=0.0.0.0 TASKFLOW_API_PORT=8000 TASKFLOW_PROBE_PORT=8001
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-m", "taskflow_core.health"]
CMD ["taskflow", "api"]
