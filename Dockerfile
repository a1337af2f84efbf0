# Airflow's image with the packages of requirements.txt, in the versions that were tested (requirements.lock).
# dags/, plugins/ and include/ are not in it: docker-compose.yaml mounts them. Not built yet: see docker-compose.yaml.
FROM apache/airflow:3.3.2-python3.11

COPY --chown=airflow:0 requirements.txt requirements.lock /opt/airflow/requirements/
# The lock as constraints, without its hashes: with them pip would ask for a hash in each line of requirements.txt, too.
# What only sandbox and tests need is in the lock, but is not installed.
RUN cd /opt/airflow/requirements \
    && sed -n 's/ *\\$//; /==/{/--hash/!p}' requirements.lock > constraints.txt \
    && pip install --no-cache-dir -r requirements.txt -c constraints.txt \
    && mkdir -p /opt/airflow/auth
