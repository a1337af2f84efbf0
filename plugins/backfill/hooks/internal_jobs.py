"""The InternalJobService, an optional second source beside Temporal: how does it say that a reindex ended?

Its .proto is not public, so its messages are learned from the server itself, by gRPC server reflection. Little is
expected of it: a method `GetJob` whose request has one text field for the resource name of the log line (`name`, or the
only text field there is), and an answer in which, at the top or one message below, a field `state` or `status` is an
enum or a text. `ListJobs` is not needed: the log line names every job.

Everything here blocks; triggers call it in a thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from include.scorecard_backfill.verdicts.agreement import JobSeen, ending_of

SERVICE = "cresta.nonpublic.job.InternalJobService"
CALL_SECONDS = 20.0
STATE_FIELDS = ("state", "status", "job_state", "job_status")


class InternalJobsError(ConnectionError):
    """The service cannot be asked; the text says where and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service is. `token`: sent as a bearer token over TLS, '' for none; `ca`: PEM, b'' = the system's."""

    target: str
    tls: bool = False
    token: str = ""
    ca: bytes = b""


class InternalJobs:
    """One look at the service: open it, ask, close it (`with internal_jobs(...) as jobs`)."""

    def __init__(self, channel: Any, service: str, target: str) -> None:
        self._channel = channel
        self._where = f"InternalJobService at {target}"
        try:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            self._service = pool.FindServiceByName(service)
        except KeyError as error:
            raise InternalJobsError(
                f"{self._where}: no service {service!r} (its reflection does not name it)"
            ) from error
        except grpc.RpcError as error:
            raise self._error(error, "server reflection") from error
        method = self._service.methods_by_name.get("GetJob")
        if method is None:
            known = ", ".join(sorted(self._service.methods_by_name)) or "none"
            raise InternalJobsError(f"{self._where}: {service} has no method GetJob, but {known}")
        self._get: MethodDescriptor = method
        self._name_field = name_field(self._get.input_type)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the service's methods."""
        return tuple(sorted(self._service.methods_by_name))

    def get(self, name: str) -> JobSeen | None:
        """Return a job by its resource name; None when the service does not know it. Raises InternalJobsError."""
        method = self._get
        request = GetMessageClass(method.input_type)(**{self._name_field: name})
        answer_class = GetMessageClass(method.output_type)
        call = self._channel.unary_unary(
            f"/{self._service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=answer_class.FromString,
        )
        try:
            answer = call(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return None
            raise self._error(error, f"GetJob {name}") from error
        word = state_word(answer)
        return JobSeen(name, word, ending_of(word))

    def get_all(self, names: Sequence[str]) -> dict[str, JobSeen | None]:
        """Return each job; None for those that the service does not know. Raises InternalJobsError."""
        return {name: self.get(name) for name in names}

    def _error(self, error: Any, what: str) -> InternalJobsError:
        code = error.code().name
        hints = {
            "UNIMPLEMENTED": "; the server offers no reflection, or not this method",
            "UNAUTHENTICATED": "; renew the token of its connection",
            "PERMISSION_DENIED": "; the token of its connection may not do this",
            "UNAVAILABLE": "; check address, port and TLS",
        }
        return InternalJobsError(f"{self._where}: {what}: {code}: {error.details()}{hints.get(code, '')}")


def address_of(connection: Any) -> Address:
    """Return where a connection leads: host, port, password = token; extra ``tls`` and ``ca`` (PEM).

    Raises InternalJobsError for one without a host or port.
    """
    extra = connection.extra_dejson
    if not connection.host or not connection.port:
        raise InternalJobsError(f"connection {connection.conn_id!r} needs a host and a port of the InternalJobService")
    target = f"{connection.host}:{connection.port}"
    return Address(target, bool(extra.get("tls")), connection.password or "", str(extra.get("ca") or "").encode())


def ask(connection: Any, names: Sequence[str]) -> dict[str, JobSeen | None]:
    """Return what the service of a connection says of each job. Raises InternalJobsError."""
    with internal_jobs(address_of(connection)) as jobs:
        return jobs.get_all(names)


@contextlib.contextmanager
def internal_jobs(address: Address, service: str = SERVICE) -> Iterator[InternalJobs]:
    """Open the service for a few calls. Raises InternalJobsError."""
    with _channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(CALL_SECONDS)
        except grpc.FutureTimeoutError as error:
            raise InternalJobsError(
                f"InternalJobService at {address.target}: no connection {'with' if address.tls else 'without'} TLS"
                f" within {CALL_SECONDS:g} s; check address, port and TLS"
            ) from error
        yield InternalJobs(channel, service, address.target)


def _channel(address: Address) -> Any:
    if not address.tls:
        if address.token:
            raise InternalJobsError(f"InternalJobService at {address.target}: a token is sent over TLS only; set tls")
        return grpc.insecure_channel(address.target)
    credentials = grpc.ssl_channel_credentials(address.ca or None)
    if address.token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(address.token))
    return grpc.secure_channel(address.target, credentials)


def name_field(message: Descriptor) -> str:
    """Return the request's field for the resource name. Raises InternalJobsError when it is not clear."""
    texts = [field.name for field in message.fields if field.type == FieldDescriptor.TYPE_STRING]
    if "name" in texts:
        return "name"
    if len(texts) == 1:
        return str(texts[0])
    raise InternalJobsError(f"{message.full_name}: which of {', '.join(texts) or 'no'} text fields is the job's name?")


def state_word(answer: Message) -> str:
    """Return the state's own word in an answer, "" when there is none: at the top first, then one message below."""
    below = [value for field, value in answer.ListFields() if field.message_type is not None and not _repeated(value)]
    for message in (answer, *below):
        for name in STATE_FIELDS:
            field = message.DESCRIPTOR.fields_by_name.get(name)
            if field is None:
                continue
            value = getattr(message, name)
            if field.enum_type is not None:
                known = field.enum_type.values_by_number.get(value)
                return str(known.name) if known is not None else str(value)
            if isinstance(value, str):
                return value
    return ""


def _repeated(value: Any) -> bool:
    return not isinstance(value, Message)
