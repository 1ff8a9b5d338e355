# One image for the worker, both ingestors and migrate; what it runs is its command (docs/deploy.md).
#
#   docker build --tag email-worker .

# The same base twice: an environment is made for one Python, and works with that one only.
FROM python:3.13-slim-trixie AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

# Without pip, which nobody needs at run time. Dependencies first: they change less often than the source.
# Only wheels: there is no compiler here, and there shall be none.
COPY requirements requirements
RUN python -m venv --without-pip /opt/email-worker \
 && python -m pip --python /opt/email-worker install --no-compile --only-binary=:all: \
        --requirement requirements/production.txt

# The build backend is pinned too, by the developers' lock file.
COPY pyproject.toml README.md ./
COPY sql sql
COPY templates templates
COPY redis_ingest redis_ingest
COPY kafka_ingest kafka_ingest
COPY worker worker
RUN python -m pip install --constraint requirements/dev.txt hatchling \
 && python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/email-worker install --no-compile --no-deps --no-index /wheels/*.whl \
 && python -m pip --python /opt/email-worker check

# Compiled here, because the file system is read-only there. Nobody edits the files, so nobody has to look at their
# times, which some builders rewrite: a start would compile everything anew, and throw it away.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/email-worker/lib


FROM python:3.13-slim-trixie
ARG VERSION=unknown
LABEL org.opencontainers.image.title="email-worker" \
      org.opencontainers.image.description="Turns rows of a Postgres table into delivered email." \
      org.opencontainers.image.version="${VERSION}"

# The base image's own pip could install things into a container that somebody got into.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
 && useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin email-worker \
 && mkdir /srv/email-worker

COPY --from=build /opt/email-worker /opt/email-worker
COPY deploy/docker/health.py /opt/email-worker/health.py

# METRICS_PORT is what the health check below asks. PYTHONDONTWRITEBYTECODE is for containers that may be written to.
ENV PATH=/opt/email-worker/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    METRICS_PORT=9464

# An empty folder: a .env file in it would be read. The number, because Kubernetes cannot tell who a name is.
WORKDIR /srv/email-worker
USER 10001:10001
EXPOSE 9464

# For Docker alone: Kubernetes asks by itself. By Python, because there is no curl.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "/opt/email-worker/health.py"]

# No shell and no wrapper in between: SIGTERM reaches the process itself.
CMD ["email-worker", "worker"]
