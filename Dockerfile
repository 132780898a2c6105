# docker build -t seq2seq . && docker run --rm -v "$PWD/outputs:/work/outputs" seq2seq train +experiment=quickstart
# Without a GPU, pass the index of torch's CPU builds, which pytorch.org names, and save gigabytes:
# docker build --build-arg PIP_EXTRA_INDEX_URL=INDEX -t seq2seq .
FROM python:3.13-slim
# A compiler, for the native library that makes training on a CPU several times faster.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev libgomp1 \
  && rm -rf /var/lib/apt/lists/*
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY seq2seq seq2seq
RUN pip install --no-cache-dir -c constraints.txt .
WORKDIR /work
ENTRYPOINT ["seq2seq"]
CMD ["--help"]
