"""A certificate for localhost that signs itself, made for the tests (valid until 2126), and contexts."""

from __future__ import annotations

import os
import ssl
import tempfile

PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2nPwTC3omwEP1mdW
SfK3k5NnpIx9Bk6Y5tR6g//uNCihRANCAAT98tcKWiQconJP8mrcrKi96zs1IXry
vl5ffg7bX3MeDu9dJpb4C6WTrKmgaYympIDDkY2pCJCGu5BmuuP/wr5l
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmzCCAUGgAwIBAgIUbZoYQVwQokRRbIXil+c+uDhxpcQwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNTIxMTUyNFoYDzIxMjYxMTAx
MjExNTI0WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAT98tcKWiQconJP8mrcrKi96zs1IXryvl5ffg7bX3MeDu9dJpb4C6WT
rKmgaYympIDDkY2pCJCGu5BmuuP/wr5lo28wbTAdBgNVHQ4EFgQUNUZHLpvdAT3a
G09U9mSDyISvG74wHwYDVR0jBBgwFoAUNUZHLpvdAT3aG09U9mSDyISvG74wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDSAAwRQIgLOuPoV23mRzdpz/Sh5ieMGKAZ4M04BHFuS1WDzfGD+0CIQCu
zXuarRst+ZnhsYXz9h1dyyYW0WLzHvXwS9JrtMU3ew==
-----END CERTIFICATE-----
"""


def server_context() -> ssl.SSLContext:
    """A context for the side that has the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "pem")
        with open(path, "w") as file:
            file.write(PEM)
        context.load_cert_chain(path)
    return context


def client_context(trusts: bool = True) -> ssl.SSLContext:
    """A context for the side that checks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if trusts:
        context.load_verify_locations(cadata=PEM[PEM.index("-----BEGIN CERT") :])
    return context
