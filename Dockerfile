# CPU:        docker build -t jaxseg .
# NVIDIA GPU: docker build -t jaxseg --build-arg JAX="jax[cuda13]" .     (run it with --gpus all)
# Use:        docker run --rm -v DIR:/data jaxseg python main.py --config=... --workdir=/data/run
FROM python:3.12-slim
ARG JAX=jax
# The compiler builds the native convolution for CPUs.
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /jaxseg
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt "$JAX"
COPY . .
RUN pip install --no-cache-dir --no-deps .
