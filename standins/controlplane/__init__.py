"""A real Kubernetes control plane behind the command line and the ``/_sandbox/`` endpoints of the stand-in.

etcd, kube-apiserver and kube-controller-manager are the real programs of one release (``go/``, see ``build``). What a
cluster has besides them is done here: certificates (``certs``), the user and its Role (``access``), a node that runs
pods as local processes with the stand-in's process runner (``node``), and a door (``door``) through which clients come:
it notes every request and plays faults on requests, then hands the request to the API server unchanged, token included.
Faults on objects are the node's; a mutating and a validating webhook (``webhooks``) do what needs admission.

What is not the real thing
    - One node. It binds pending pods itself (no kube-scheduler) and is trusted (``system:masters``).
    - No network, no volumes: a service account's token is mounted into no process.
    - The node-lifecycle controller does not run: a node that is frozen loses no pods.
    - The token is made by the server. A revoked one may be taken for 10 more seconds (cache of kube-apiserver's
      authentication, not configurable).
    - The back-off after a failed pod is the controller's own (10 s, doubled), whatever ``--backoff-seconds`` says.
"""
