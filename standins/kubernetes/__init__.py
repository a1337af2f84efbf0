"""A small stand-in for a Kubernetes API server with Jobs, Pods, CronJobs, Secrets and Events.

It talks HTTP on 127.0.0.1 and is meant for the official Python clients (``kubernetes``,
``kubernetes_asyncio``) and for Airflow's cncf.kubernetes provider, which all work unchanged. A pod's
container is a local process of its own process group. Start it with ``python -m standins.kubernetes``; faults
and the record of requests are at ``/_sandbox/`` (see faults, admin, client).

What is the same as in a real cluster
    Paths, verbs, Status objects and their texts, uid, resourceVersion, generation, generateName, dry run,
    label and field selectors, the generated labels and selector of a Job, the immutable fields, the default
    propagation of a Job's deletion (Orphan), Foreground and Background deletion, garbage collection by
    ownerReferences, the Job's conditions in their order (SuccessCriteriaMet, Complete; FailureTarget,
    Failed; Suspended), back-off, deadline, TTL, history limits for Jobs that a CronJob controls, log
    reading, init containers and native sidecars. Compared with kube-apiserver 1.36 by the same tests
    (standins.controlplane, ADR 20).

What it does NOT do
    - No scheduler for CronJobs: they are stored, and only their history limits are applied, to Jobs whose
      ownerReference to the CronJob has ``controller: true``. ``status.active`` of a CronJob is not kept.
    - No nodes, no scheduling, no resource limits, no volumes, no service accounts (a real server makes no pod
      whose account does not exist), no network policy, no probes and no ephemeral containers.
    - A container's ``command`` is ignored (the images file gives the program); ``args`` are added to it.
      Values such as ``$(NAME)`` are not expanded. Env sources are values, Secrets, and metadata.name,
      .namespace, .uid.
    - Indexed Jobs, podFailurePolicy, successPolicy, backoffLimitPerIndex and a foreign managedBy are
      refused in a Job; a CronJob's template may hold them.
    - ``limit`` and ``continue`` are ignored: a list is always whole.
    - A strategic merge patch is handled as a merge patch (lists are replaced); JSON patch and server-side
      apply are refused with 415.
    - Unknown fields are refused (400) unless fieldValidation=Warn or Ignore is asked for; a real server
      only warns by default. Unknown query parameters are refused with 400; a real server ignores them. Both
      are meant: they show a client's mistake.
    - No watch, no deletion of collections, no list of groups and resources (405, 404): no client here asks for them.
    - No managedFields, no tables, no protobuf, no OpenAPI, no admission policies. What a webhook would change are
      fault rules (mutate, inject_container); ResourceQuotas count Jobs and pods only.
    - RBAC: everything is allowed but what a deny rule of ``/_sandbox/rbac`` names. Plain HTTP, one token.
    - The back-off after a failed pod (``--backoff-seconds``, 1 s) and the longest grace period
      (``--max-grace-seconds``, 2 s) are shorter than the real 10 s and 30 s.
    - Pods do not survive the server: at its end, also by SIGKILL, all are killed (see guard), and the next start
      marks them Failed. A program that starts a session of its own escapes that. Linux only.
    - Faults and deny rules live in memory: a restart forgets them. Objects, the token and the record are kept.
"""
