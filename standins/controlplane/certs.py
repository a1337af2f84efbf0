"""The certificates and keys of one cluster, made once per data folder."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from standins.kubernetes.kubeconfig import write_private

LIFE = timedelta(days=365)
ADMINISTRATORS = "system:masters"


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """All files of one cluster. ``accounts`` is the key that signs service accounts' tokens."""

    ca: Path
    server: Pair
    node: Pair
    administrator: Pair
    kubelet_client: Pair
    accounts: Path


def ensure(folder: Path) -> Certificates:
    """The files in a folder, made if they are not there."""
    server, node, administrator, kubelet_client = (
        Pair(folder / f"{name}.crt", folder / f"{name}.key") for name in ("server", "node", "admin", "kubelet-client")
    )
    found = Certificates(folder / "ca.crt", server, node, administrator, kubelet_client, folder / "accounts.key")
    if not found.accounts.exists():  # the last one that is written
        folder.mkdir(parents=True, exist_ok=True)
        _make(found)
    return found


def _make(files: Certificates) -> None:
    authority = _Authority()
    files.ca.write_bytes(authority.pem)
    names = ("localhost", "kubernetes", "kubernetes.default.svc", "127.0.0.1")
    authority.issue(files.server, "kube-apiserver", names=names)
    authority.issue(files.node, "system:node:sandbox-node", names=("localhost", "127.0.0.1"))
    authority.issue(files.administrator, "sandbox-administrator", group=ADMINISTRATORS)
    authority.issue(files.kubelet_client, "kube-apiserver-kubelet-client", group=ADMINISTRATORS)
    write_private(files.accounts, _pem(ec.generate_private_key(ec.SECP256R1())))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


class _Authority:
    """A certificate authority whose key is forgotten after use."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sandbox")])
        self._cert = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self._cert.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + LIFE)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def issue(self, pair: Pair, name: str, group: str = "", names: Sequence[str] = ()) -> None:
        """Write a certificate for a user of a group, or for a server with these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            self._builder(x509.Name(parts), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(n) for n in names]), critical=False)
        pair.cert.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        write_private(pair.key, _pem(key))


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
