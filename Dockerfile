# Two images: the service (what `docker build .` makes) and, by `--target load`, Locust with our acceptance profile.
# Debian's glibc rather than Alpine's musl: every dependency has a wheel for it, so no stage needs a compiler.
FROM python:3.13-slim-trixie AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
# A fixed number, so that volumes and `runAsNonRoot` can rely on it.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin orders
WORKDIR /app

# The dependencies, kept until setup.cfg changes. The package is installed where it will lie (--editable), because the
# migrations and conf/ lie beside it.
FROM base AS dependencies
RUN python -m venv --without-pip /venv
COPY setup.cfg pyproject.toml ./
COPY orders_api/__init__.py orders_api/
RUN pip --python /venv/bin/python install --no-cache-dir --only-binary :all: --editable .

FROM dependencies AS load-dependencies
RUN pip --python /venv/bin/python install --no-cache-dir --only-binary :all: --editable '.[load]'

FROM base AS load
COPY --from=load-dependencies /venv /venv
COPY perf/locustfile.py perf/traffic.py perf/operations.py perf/wire.py perf/newcomers.py perf/
USER 10001:10001
EXPOSE 8089
CMD ["locust", "-f", "perf/locustfile.py", "--users", "1", "--spawn-rate", "1"]

# Compiled here: the file system will be read-only.
FROM dependencies AS build
COPY orders_api orders_api
COPY migrations migrations
COPY conf/gunicorn.conf.py conf/healthcheck.py conf/make-secrets.py conf/
RUN python -m compileall -q orders_api

FROM base AS service
COPY --from=build /venv /venv
COPY --from=build /app /app
ARG RELEASE=
ENV RELEASE=$RELEASE
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["python", "conf/healthcheck.py"]
CMD ["gunicorn", "-c", "conf/gunicorn.conf.py"]
