# The stand-in for the reindexer's image: the Job's command, the Temporal worker and the data generator of sandbox/.
# Not built yet: see docs/deploy/compose.md.
FROM python:3.11-slim-bookworm

WORKDIR /app
COPY requirements.lock ./
RUN sed -n 's/ *\\$//; /==/{/--hash/!p}' requirements.lock > constraints.txt \
    && pip install --no-cache-dir clickhouse-connect temporalio -c constraints.txt
COPY sandbox/ sandbox/
ENV PYTHONUNBUFFERED=1
# It writes to the volume at /data only; seed and worker need the same user, and the Job's pod reads.
RUN useradd --uid 10001 --create-home app && mkdir /data && chown app /data
USER app
