# The platform's image with the task types of the tests in it.
ARG PLATFORM=taskflow/platform:dev
FROM ${PLATFORM}
COPY plugin /opt/plugin
ENV PYTHONPATH=/opt/plugin
