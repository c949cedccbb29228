"""A broker that wants to know who comes: TLS, logins and rights, made anew for each run of the tests."""

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import CoordinationType
from aiokafka.errors import GroupCoordinatorNotAvailableError
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka_cluster import ROOT, Broker, Cluster, free_ports

HOST = "127.0.0.1"
"""The one host that the broker's certificate is for."""

OTHER_NAME = "localhost"
"""Leads to the broker, and is not in its certificate."""

USERS = ("shop", "till", "desk", "stranger")
CERTIFIED = "certified"
"""Who shows a certificate instead of a password."""

_KINDS = {"topic": 2, "group": 3, "transactional id": 5}
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8}
_ANY_HOST, _ALLOW = "*", 3
_EXACT, _PREFIX = 3, 4

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"


class Right(NamedTuple):
    """What somebody may do. All transactional ids that begin with `name` are meant, else what is named so."""

    operation: str
    kind: str
    name: str


@dataclass(frozen=True)
class Secured:
    """A broker with four doors: an open one on loopback, where everything is allowed, and those of the tests.

    Fields  broker     to be stopped
            passwords  of each of USERS
            login      HOST:PORT where users log in by password, over TLS
            mutual     HOST:PORT where they show a certificate
            folder     holds ca.pem, other-ca.pem (of a stranger), client.pem
    """

    broker: Broker
    passwords: Mapping[str, str]
    login: str
    mutual: str
    folder: Path

    async def settle(self) -> None:
        """Wait until groups and transactions have coordinators: a new broker makes their topics when first asked."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        try:
            for kind in (CoordinationType.GROUP, CoordinationType.TRANSACTION):
                for _ in range(600):
                    with suppress(GroupCoordinatorNotAvailableError):
                        await admin.find_coordinator("anybody", kind)
                        break
                    await asyncio.sleep(0.1)
        finally:
            await admin.close()

    async def grant(self, user: str, rights: Iterable[Right]) -> None:
        """Allow a user things."""
        for response in await self._change(CreateAclsRequest, user, rights):
            assert [code for code, _ in response.creation_responses] == [0], response

    async def revoke(self, user: str, rights: Iterable[Right]) -> None:
        """Take rights away that were granted."""
        for response in await self._change(DeleteAclsRequest, user, rights):
            [(code, _, found)] = response.filter_responses
            assert (code, len(found)) == (0, 1), response

    async def _change(
        self, change: type[CreateAclsRequest | DeleteAclsRequest], user: str, rights: Iterable[Right]
    ) -> list[Any]:
        """Have the rules of rights made or deleted; return the answers."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        try:
            return [await admin._send_to_controller(change(*_rule(user, right))) for right in rights]
        finally:
            await admin.close()

    def flags(self, user: str, **more: object) -> dict[str, object]:
        """Return the settings with which a user logs in by password."""
        return {
            "bootstrap_servers": self.login,
            "security_protocol": "sasl_ssl",
            "sasl_mechanism": "PLAIN",
            "sasl_username": user,
            "tls_ca_file": self.folder / "ca.pem",
            **more,
        }

    def password(self, user: str) -> dict[str, str]:
        """Return the environment that holds a user's password."""
        return {"RFMSTREAM_SASL_PASSWORD": self.passwords[user]}


def _rule(user: str, right: Right) -> tuple[int, str, int, str, str, int, int]:
    """Return the access rule that gives a right, as the requests take it."""
    pattern = _PREFIX if right.kind == "transactional id" else _EXACT
    what = _KINDS[right.kind], right.name, pattern
    return *what, f"User:{user}", _ANY_HOST, _OPERATIONS[right.operation], _ALLOW


def rights_of_a_worker(cluster: Cluster) -> set[Right]:
    """Return what docs/live.md says a worker needs."""
    outputs = [
        getattr(cluster.outputs, name) for name in ("changes", "current", "rejected", "clock", "signals")
    ]
    return {
        Right("Read", "topic", cluster.orders),
        Right("Read", "topic", cluster.outputs.clock),
        Right("Read", "group", cluster.name),
        Right("Write", "transactional id", f"{cluster.name}/"),
        *(Right(operation, "topic", topic) for topic in outputs for operation in ("Write", "Create")),
    }


def rights_of_produce(topic: str) -> set[Right]:
    """Return what docs/live.md says that produce needs to create a topic and write to it."""
    return {Right(operation, "topic", topic) for operation in ("Write", "Create")}


def secured_broker(folder: Path) -> Secured:
    """Make certificates and passwords, and a broker (not started) that goes by them."""
    folder.mkdir()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    trustme.CA().cert_pem.write_to_path(str(folder / "other-ca.pem"))
    authority.issue_cert(
        f"{CERTIFIED}.example", common_name=CERTIFIED
    ).private_key_and_cert_chain_pem.write_to_path(str(folder / "client.pem"))
    certificate = authority.issue_cert(HOST)
    passwords = {user: secrets.token_urlsafe(16) for user in USERS}
    port, controller, login, mutual = free_ports(4)
    open_door, closed_doors = f"PLAINTEXT://{HOST}:{port}", f"LOGIN://{HOST}:{login},MUTUAL://{HOST}:{mutual}"
    properties = {
        "listeners": f"{open_door},{closed_doors},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"{open_door},{closed_doors}",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # The broker itself, and whoever comes through the open door.
        "super.users": "User:ANONYMOUS",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": _one_line(certificate.cert_chain_pems[0].bytes()),
        "ssl.keystore.key": _one_line(_pkcs8(certificate)),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": _one_line(authority.cert_pem.bytes()),
        "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]*).*$/$1/,DEFAULT",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        "listener.name.login.plain.sasl.jaas.config": " ".join(
            [_PLAIN, *(f'user_{user}="{password}"' for user, password in passwords.items())]
        )
        + ";",
        "listener.name.login.scram-sha-512.sasl.jaas.config": f"{_SCRAM};",
    }
    broker = Broker(
        folder / "broker",
        port,
        controller,
        jars=ROOT / ".kafka" / "jars",
        properties=properties,
        format_args=[
            f"--add-scram=SCRAM-SHA-512=[name={user},password={password}]"
            for user, password in passwords.items()
        ],
    )
    return Secured(broker, passwords, f"{HOST}:{login}", f"{HOST}:{mutual}", folder)


def _pkcs8(certificate: trustme.LeafCert) -> bytes:
    """Return the private key in the one form that Kafka reads."""
    key = load_pem_private_key(certificate.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _one_line(pem: bytes) -> str:
    return pem.decode().replace("\n", "\\n")
