# One image for every role; the command says which. Built in two stages: no build tool, cache or test stays in it.
#
#   docker compose build                                                        # torch from the package index
#   WHEELS_DIR=/path/with/torch-cpu-wheel docker compose build                  # torch from that folder, much smaller
#   BUILD_CA_FILE=/etc/ssl/certs/ca-certificates.crt docker compose build      # behind a proxy with its own authority
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_DEFAULT_TIMEOUT=180
RUN python3 -m venv /opt/tessera
WORKDIR /src
COPY constraints.txt pyproject.toml ./
# torch first and exactly pinned: the CPU wheel of the folder `wheels` wins over the index's build with CUDA.
RUN --mount=type=bind,from=wheels,target=/wheels --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    /opt/tessera/bin/pip install --quiet --find-links /wheels -c constraints.txt torch==2.13.0
# The dependencies change rarely, our code often: they get a layer of their own.
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    python3 -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); \
      print('\n'.join([*p['project']['dependencies'], *p['project']['optional-dependencies']['postgres'], *p['build-system']['requires']]))" \
      > requirements.txt && \
    /opt/tessera/bin/pip install --quiet -c constraints.txt -r requirements.txt
# Byte code is made here, since no role can write it at run time (some files of others are no Python: templates).
COPY docker/slim.sh ./
RUN sh slim.sh /opt/tessera && cd /tmp && \
    /opt/tessera/bin/python -c "import torch._dynamo, opacus, tenseal, syft_rds, typst, pyarrow.parquet, h5py, psycopg" && \
    { /opt/tessera/bin/python -m compileall -q -j 0 /opt/tessera/lib >/dev/null || true; }
COPY README.md ./
COPY models models
COPY privacy privacy
COPY datasites datasites
COPY orchestrator orchestrator
RUN /opt/tessera/bin/pip install --quiet --no-deps --no-build-isolation . && \
    /opt/tessera/bin/pip uninstall --quiet --yes hatchling trove-classifiers setuptools pip

FROM python:3.11-slim
# Every role runs under an account of its own; an account that is in no table breaks libraries that ask for its name.
RUN set -e; for number in $(seq 0 19); do \
      echo "tessera$number:x:$((10000 + number)):10000:Tessera:/tmp:/usr/sbin/nologin" >> /etc/passwd; done; \
    echo "tessera:x:10000:" >> /etc/group; \
    mkdir -p /var/lib/tessera /exchange /data; chmod 1777 /var/lib/tessera /exchange; \
    rm -rf /usr/bin/pip* /usr/local/bin/pip* /usr/lib/python3*/ensurepip /usr/local/lib/python3*/ensurepip; \
    for tool in pip setuptools wheel pkg_resources _distutils_hack; do \
      rm -rf /usr/lib/python3/dist-packages/$tool* /usr/local/lib/python3*/site-packages/$tool*; done
COPY --from=build /opt/tessera /opt/tessera
COPY docker/three.toml docker/paper.toml docker/filing.toml /etc/tessera/
ENV PATH=/opt/tessera/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp MPLCONFIGDIR=/tmp \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
    TESSERA_HOME=/var/lib/tessera/home TESSERA_EXCHANGE=/exchange
USER 10000:10000
WORKDIR /tmp
ENTRYPOINT ["tessera"]
CMD ["--help"]
