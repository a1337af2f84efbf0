"""A small stand-in for a Kubernetes API server with Jobs, Pods, CronJobs, Secrets and Events.

It talks HTTP on 127.0.0.1 and is meant for the official Python clients (``kubernetes``,
``kubernetes_asyncio``) and for Airflow's cncf.kubernetes provider, which all work unchanged. A pod's
container is a local process of its own process group. Start it with ``python -m standins.kubernetes``; faults
and the record of requests are at ``/_sandbox/`` (see faults, admin, client).

What is the same as in a real cluster
    Paths, verbs, Status objects, uid, resourceVersion, generation, the dry run of a creation, label selectors, a
    merge patch as compare-and-set, preconditions of a deletion, the generated labels and selector of a Job, the
    immutable fields, garbage collection of a Job's pods, the Job's conditions in their order (SuccessCriteriaMet,
    Complete; FailureTarget, Failed; Suspended), back-off, deadline, TTL, history limits for Jobs that a CronJob
    controls, reading and following logs. Compared with kube-apiserver 1.36 by the same tests
    (standins.controlplane, ADR 20).

What it does NOT do
    Whatever no client here asks for: it is refused (400, 404, 405, 415, or 422 "does not simulate"), never
    taken and forgotten. A real control plane stands beside it for the rest.

    - No watch, no PUT, no deletion of collections, no list over all namespaces, no list of groups and
      resources, no generateName. Clients make Jobs and Secrets, patch Jobs and CronJobs, delete Jobs and pods;
      other types are read. Pages (``limit``), and a dry run of anything but a creation, are refused.
    - A Job is deleted with Background; Foreground is the same here (the Job goes at once, its pods a moment
      later). Orphan is refused, and so is a deletion without a policy, which is Orphan in a real server.
    - Label selectors have no sets (``in``, ``notin``). Field selectors read metadata.name and an Event's
      involvedObject.name and .uid, by equality. Logs have no times to begin from and no previous container.
    - No scheduler for CronJobs: they are stored, and only their history limits are applied, to Jobs whose
      ownerReference to the CronJob has ``controller: true``. ``status.active`` of a CronJob is not kept.
    - No nodes, no scheduling, no resource limits, no volumes, no service accounts (a real server makes no pod
      whose account does not exist), no network (pods have no addresses), no probes, no quotas.
    - A container is run once: restartPolicy OnFailure, init containers (so no native sidecars) and ephemeral
      ones are refused in a Job, and shown as CreateContainerConfigError where a real server has taken them.
    - A container's ``command`` is ignored (the images file gives the program, read at the start); ``args`` are
      added to it. Values such as ``$(NAME)`` are not expanded. Env sources are values, keys of Secrets, and
      metadata.name, .namespace, .uid; there is no envFrom.
    - Indexed Jobs, podFailurePolicy, successPolicy, backoffLimitPerIndex, manualSelector and a foreign managedBy
      are refused in a Job; a CronJob's template may hold them. A Job whose parallelism is lowered ends no pod.
    - A strategic merge patch is handled as a merge patch (lists are replaced); JSON patch and server-side
      apply are refused with 415.
    - Unknown fields are refused (400) as with fieldValidation=Strict; a real server only warns by default. Query
      parameters that are not read are refused with 400; a real server ignores them. Both are meant: they show a
      client's mistake. Rules beyond the schema: names, labels, numbers, containers, immutable fields; no others,
      and their texts are those of a JSON schema, with the field and the status of a real server.
    - No managedFields, no tables, no protobuf, no OpenAPI, no admission. What a webhook would change is the fault
      rule mutate, what a quota or a policy refuses is the rule error.
    - RBAC: everything is allowed but what a deny rule of ``/_sandbox/rbac`` names. Plain HTTP, one token; a
      request without one is refused with 401 (a real server takes it for system:anonymous, 403).
    - The back-off after a failed pod (``--backoff-seconds``, 1 s) and the longest grace period
      (``--max-grace-seconds``, 2 s) are shorter than the real 10 s and 30 s. Events are kept for ever.
    - Pods do not survive the server: at its end, also by SIGKILL, all are killed (see guard), and the next start
      marks them Failed. A program that empties its children's environment escapes that. Linux only.
    - Faults and deny rules live in memory: a restart forgets them. Objects, the token and the record are kept.
"""
