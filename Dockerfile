# One image for every role; the command says which. No build tool, cache or test stays in it.
#
#   docker compose build                                                        # torch from the package index
#   WHEELS_DIR=/path/with/torch-cpu-wheel docker compose build                  # torch from that folder, much smaller
#   BUILD_CA_FILE=/etc/ssl/certs/ca-certificates.crt docker compose build      # behind a proxy with its own authority
#   BASE_DIGEST=sha256:... docker compose build                                 # the base image with this digest, no other
#
# Nothing is installed that has no hash in constraints-hashed.txt; a wheel in WHEELS_DIR needs one as well (make lock).
ARG BASE_IMAGE=python:3.11-slim
ARG BASE_DIGEST=
FROM ${BASE_IMAGE}${BASE_DIGEST:+@${BASE_DIGEST}} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_DEFAULT_TIMEOUT=180 PIP_ONLY_BINARY=:all: PIP_NO_COMPILE=1
RUN python3 -m venv /opt/tessera
ENV PATH=/opt/tessera/bin:$PATH
WORKDIR /src

# What is asked for, as files that stay the same when other lines of pyproject.toml change: then the layers below do too.
FROM build AS wanted
COPY constraints-hashed.txt pyproject.toml ./
COPY .ci/locked.py .ci/
RUN python .ci/locked.py pinned pip > pip.txt && \
    python .ci/locked.py requirements postgres s3 traces > requirements.txt

# The dependencies: hundreds of megabytes that change rarely.
FROM build AS dependencies
COPY --from=wanted /src/constraints-hashed.txt /src/pip.txt /src/requirements.txt ./
COPY .ci/locked.py .ci/
# torch first: the CPU wheel of the folder `wheels` wins over the index's build with CUDA. An older pip than ours takes
# no hashes from constraints.
RUN --mount=type=bind,from=wheels,target=/wheels --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; export PIP_FIND_LINKS=/wheels; \
    pip install --quiet --require-hashes -r pip.txt && python .ci/locked.py torch > torch.txt && \
    pip install --quiet --require-hashes -c constraints-hashed.txt -r torch.txt
RUN --mount=type=secret,id=ca,target=/run/secrets/ca.pem \
    if [ -s /run/secrets/ca.pem ]; then export PIP_CERT=/run/secrets/ca.pem; fi; \
    pip install --quiet --require-hashes -c constraints-hashed.txt -r requirements.txt
FROM dependencies AS slim
COPY docker/slim.py ./
RUN pip uninstall --quiet --yes hatchling trove-classifiers setuptools pip && python slim.py /opt/tessera

# Our own code, in parts of a few megabytes: a patch is a new layer of the parts it touches. Times and byte code are the
# same in every build, so an unchanged part is the same layer. Byte code is checked against its source when it is read.
FROM dependencies AS own
COPY README.md pyproject.toml ./
COPY models models
COPY privacy privacy
COPY datasites datasites
COPY orchestrator orchestrator
COPY tessera tessera
COPY docker/parts.sh ./
RUN PIP_ONLY_BINARY= pip install --quiet --no-deps --no-build-isolation --target /own . && sh parts.sh /own /parts

# The base image without what only its maker needs (half of it), as one layer.
FROM ${BASE_IMAGE}${BASE_DIGEST:+@${BASE_DIGEST}} AS root
COPY docker/root.sh /tmp/
RUN sh /tmp/root.sh && rm /tmp/root.sh
# Every role runs under an account of its own; an account that is in no table breaks libraries that ask for its name.
RUN set -e; for number in $(seq 0 19); do \
      echo "tessera$number:x:$((10000 + number)):10000:Tessera:/tmp:/usr/sbin/nologin" >> /etc/passwd; done; \
    echo "tessera:x:10000:" >> /etc/group; \
    mkdir -p /var/lib/tessera /exchange /data /results; chmod 1777 /var/lib/tessera /exchange

FROM scratch
COPY --from=root / /
COPY --from=slim /opt/tessera /opt/tessera
COPY --from=own /parts/1 /opt/tessera/
COPY --from=own /parts/2 /opt/tessera/
COPY --from=own /parts/3 /opt/tessera/
COPY --from=own /parts/4 /opt/tessera/
COPY docker/three.toml docker/paper.toml docker/filing.toml /etc/tessera/
COPY docker/three.toml /etc/tessera/demo.toml
ENV PATH=/opt/tessera/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp MPLCONFIGDIR=/tmp \
    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 \
    TESSERA_HOME=/var/lib/tessera/home TESSERA_EXCHANGE=/exchange
ARG BASE_IMAGE BASE_DIGEST VERSION=0.1.0 REVISION= CREATED=
LABEL org.opencontainers.image.title="Tessera" \
      org.opencontainers.image.description="Privacy-hardened, multi-modal federated learning: every role of a consortium" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="The Tessera authors" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.base.digest="${BASE_DIGEST}"
USER 10000:10000
WORKDIR /tmp
ENTRYPOINT ["tessera"]
CMD ["--help"]
