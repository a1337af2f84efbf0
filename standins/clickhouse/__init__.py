"""A stand-in for a ClickHouse cluster: each node is a process with a real engine (chDB) behind ClickHouse's HTTP.

`python -m standins.clickhouse --topology FILE.json --node NAME --data DIR` runs one node on the address that the
topology gives it: `{"cluster": "conversations", "nodes": [{"name", "shard", "replica", "host", "port"}, ...]}`, shards
and replicas from 1. `hostName()` is the node's name. The nodes share a folder next to the topology (`<name>.keeper`),
which is what ZooKeeper is to a real cluster. With SANDBOX_CLICKHOUSE_PASSWORD set, user `admin` must give that password
(HTTP Basic; 401, code 516 otherwise); without it everybody is let in.

Endpoints besides ClickHouse's own `/` and `/ping` (JSON; the same credentials):

    GET    /statements?queries=0|1&since=ID&contains=TEXT   what clients sent: id, time (Unix seconds), query_id, user,
                                                 statement, settings, outcome, seconds; without queries=1 changes only
    DELETE /statements                           forget the record
    GET    /faults                               the rules with `id` and `hits`
    POST   /faults                               add a rule or a list of them, answers {"ids": [...]}; see faults.py
    DELETE /faults, DELETE /faults/ID            delete all or one; what they held back goes on

The record and the rules are files in DIR and survive the node. client.py starts clusters and uses these endpoints.

What is the same as in a real cluster
    SQL, types, formats and errors are the engine's. cluster(), clusterAllReplicas() and Distributed tables read the
    rows of the other nodes (a view() is worked out by each of them), and what the SELECT does with them is done by the
    node that was asked, so every aggregate is exact; skip_unavailable_shards counts. Inserts into a
    Distributed table go to shards by its sharding key. MergeTree tables are replicated within their shard: inserts,
    mutations (one mutation_id on all replicas), DROP PARTITION, TRUNCATE and other ALTERs reach all replicas, a dead
    one when it is back; without ON CLUSTER they reach one shard. ON CLUSTER runs on every host, also later, and
    answers per host as distributed_ddl_output_mode (throw, null_status_on_timeout) and distributed_ddl_task_timeout say
    (code 159, NULL status). A mutation covers the rows that were there when it came, however long it is held back.
    system.mutations keeps the last 100 finished ones. system.clusters, replicas, replication_queue and
    distributed_ddl_queue tell the truth about this cluster, system.processes about the statements of the node's own
    clients; tables, parts, disks and all others are the engine's.

What it does NOT do
    - Engines stay plain: a CREATE names no Replicated engine, and every MergeTree table counts as replicated.
      system.replicas names them Replicated; system.tables and SHOW CREATE do not. Inserts are not deduplicated (the
      rule `insert_drop` plays that).
    - `num_hosts_active` is always 0. ON CLUSTER never waits for mutations (mutations_sync is ignored there), and a
      host's answer may come shortly before its replica has the change.
    - A Distributed insert is in the foreground, unless a rule `spool` holds it back. Replicas of a shard are chosen in
      order, own node first.
    - Nodes send rows, not aggregate states: the columns that the SELECT names, filtered by its WHERE when the source
      stands alone and no alias is meant. Aliases need AS. hostName() with several sources, and everywhere outside
      cluster sources, is the node that was asked.
    - CREATE TABLE ... AS SELECT and views over cluster() or Distributed tables are not planned. remote() is not
      supported; loopback, quorum and parallel replicas are not either.
    - No sessions: no lock (code 373), no temporary tables and no SET from one request to the next. A GET may change
      something, too.
    - One user. A rule `grants` says what SHOW GRANTS and CHECK GRANT answer for it (all rights without one; rights on
      columns are not read, and who was given all parts of a group has not the group); no statement is refused by it. A
      rule `profile` is its settings profile, for statements sent to that node; `fixed` looks at URL parameters only.
    - Plain HTTP, no native protocol, no `compress=1`, no forms and external tables, answers neither streamed nor
      compressed, no progress headers.
    - query_log and KILL QUERY know this node's engine only; system.processes does not list the parts of a query that
      other nodes carry out.
    - A data folder that is not the one of last time starts with what is left in the shared log: tables, no old rows.
    - KILL MUTATION answers `waiting`, and the mutation is gone at once, unless a rule `kill_lists` keeps it listed.
    - SYSTEM FLUSH DISTRIBUTED ON CLUSTER answers before the rows are sent.
"""
