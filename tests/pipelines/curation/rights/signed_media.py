"""Media with real C2PA manifests, signed by a chain that lives as long as the test."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEY_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
CREATED = {
    "label": "c2pa.actions",
    "data": {
        "actions": [
            {
                "action": "c2pa.created",
                "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
            }
        ]
    },
}
MEDIA_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg", ".png": "image/png"}


@cache
def signer_chain() -> tuple[bytes, bytes]:
    """(certificates, key) in PEM: a signer's, made by an authority of its own."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = (
        _certificate("Authority", authority_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    signer = (
        _certificate("Signer", key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False
        )
        .sign(authority_key, hashes.SHA256())
    )
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (signer, authority))
    return chain, key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def sign(
    plain: Path,
    signed: Path,
    uses: Mapping[str, str] | None = None,
    *,
    label: str = "c2pa.training-mining",
    made_of: Sequence[Path] = (),
    kept_at: str = "",
) -> Path:
    """`signed`: the media of `plain` with a manifest that says so of each use. `made_of`: signed
    files that it names as what it was made of. `kept_at`: an address that stands in the file in
    the manifest's place."""
    media_type = MEDIA_TYPES[plain.suffix]
    assertions: list[dict[str, Any]] = [CREATED]
    if uses:
        entries = {name: {"use": use} for name, use in uses.items()}
        assertions.append({"label": label, "data": {"entries": entries}})
    manifest = {
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "title": plain.name,
        "format": media_type,
        "assertions": assertions,
    }
    untrusting = {"verify": {"verify_after_sign": False, "verify_trust": False}}
    info = c2pa.C2paSignerInfo(b"es256", *signer_chain(), None)
    with (
        c2pa.Signer.from_info(info) as signer,
        c2pa.Builder(manifest, context=c2pa.Context.from_dict(untrusting)) as builder,
        open(plain, "rb") as source,
        open(signed, "w+b") as target,
    ):
        for part in made_of:
            with open(part, "rb") as file:
                told = {"title": part.name, "relationship": "componentOf"}
                builder.add_ingredient(told, MEDIA_TYPES[part.suffix], file)
        if kept_at:
            builder.set_remote_url(kept_at)
            builder.set_no_embed()
        builder.sign(signer, media_type, source, target)
    return signed


def _certificate(name: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("Authority"))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    attributes = {NameOID.ORGANIZATION_NAME: "Throw-away", NameOID.COMMON_NAME: common_name}
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes.items()])


def _key_usage(*uses: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in uses for name in KEY_USES})
