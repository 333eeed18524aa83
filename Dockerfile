# The server of docs/server.md in an image: a package is mounted at /package, and nothing else is
# needed.
#
#   docker build --tag gptoss-onnx .
#   docker run --rm --publish 127.0.0.1:8000:8000 --env GPTOSS_ONNX_API_KEYS \
#     --volume "$PWD/gpt-oss-20b-onnx:/package:ro" gptoss-onnx
#
# compose.yaml has the limits that a service wants, and Prometheus beside it.

# Any image with Python 3.11 or newer and Debian's apt-get.
ARG BASE=python:3.12-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE} AS build
# Any compiler of C++17 does, so its version is the distribution's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --no-install-recommends --yes g++ python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python3 -m venv /opt/gptoss-onnx \
    && /opt/gptoss-onnx/bin/pip install --no-cache-dir --constraint constraints.txt '.[cpu,serve]'

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=build /opt/gptoss-onnx /opt/gptoss-onnx
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gptoss
USER 10001
ENV PATH=/opt/gptoss-onnx/bin:$PATH
EXPOSE 8000
# It answers once the package is open. Asked for without a key, which /ready needs none of.
HEALTHCHECK --interval=30s --timeout=5s --start-period=2m CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=4)"]
ENTRYPOINT ["gptoss-onnx"]
CMD ["serve", "/package", "--host", "0.0.0.0", "--drain-seconds", "60"]
