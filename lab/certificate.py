"""TLS contexts for tests: a throwaway certificate authority and a server certificate that it signed."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificates:
    """A server's context, a client's that trusts it, and the authority for a client in another process.

    A client with the system's default context refuses the server, as it would a self-signed certificate.
    """

    server: ssl.SSLContext
    client: ssl.SSLContext
    authority_pem: bytes

    def write_authority(self, path: Path) -> Path:
        """Write the authority's certificate to a file, for SSL_CERT_FILE or a CA option."""
        path.write_bytes(self.authority_pem)
        return path


def make_certificates(*names: str) -> Certificates:
    """Contexts for a server with these names and addresses (default: localhost and 127.0.0.1)."""
    import trustme  # here, because only the TLS tests need this development dependency

    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Certificates(server, client, authority.cert_pem.bytes())
