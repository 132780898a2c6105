# docker build -t seq2seq .
# docker run --rm -v "$PWD:/work" seq2seq train +experiment=quickstart

# The wheel, with the native library: the image itself needs no compiler.
FROM python:3.13-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

FROM python:3.13-slim
# Arguments of pip for another build of torch, such as one without CUDA.
ARG TORCH="torch"
COPY constraints.txt /
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --constraint /constraints.txt ${TORCH} \
 && pip install --no-cache-dir --constraint /constraints.txt /wheels/*.whl && rm -r /wheels
# Runs, data and caches are below /work, which is mounted, whoever the user is.
WORKDIR /work
ENV HOME=/work
ENTRYPOINT ["seq2seq"]
CMD ["--help"]
