//! The files that an operator of Traefik has beside Pilothouse's: the static configuration, and a certificate.

use std::net::SocketAddr;
use std::path::Path;

/// Of nobody, and good for nothing but that Traefik need not make one for each change.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBgDCCASWgAwIBAgIUM70bD9817jgndmx5VPVL1X002VkwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODAyNTYyNVoYDzIxMjYxMTA0
MDI1NjI1WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAQScPMqRbDK0BDDTWwHR/F2l1OB2+cq1k2t9LhZ0NdM+JoRIJ+UELQU
5SYe5qx7gtTgHe8QtJ3cZPSUPyYgTmTAo1MwUTAdBgNVHQ4EFgQUtwofVeUwdA4m
WxKtWtkyrOY3JM8wHwYDVR0jBBgwFoAUtwofVeUwdA4mWxKtWtkyrOY3JM8wDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEA6tWW5+nsVNLHKnHffsL9
aLjTlyclVpdDyvX98xaPOfgCIQCzvxuv3kXg+pVU44bw0QL4u+JMoFrtTgIQD1S6
C1OMcA==
-----END CERTIFICATE-----
";
const KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgKQDTX8hh7VNX4Xy5
wmZcTNsteAnytGuewSNESH22DtWhRANCAAQScPMqRbDK0BDDTWwHR/F2l1OB2+cq
1k2t9LhZ0NdM+JoRIJ+UELQU5SYe5qx7gtTgHe8QtJ3cZPSUPyYgTmTA
-----END PRIVATE KEY-----
";

/// Writes `traefik.yml` to `dir`, with an entry point `web` at `listen` beside the lines that Pilothouse asks for, and the
/// default certificate to `dynamic`.
pub fn write(dir: &Path, listen: SocketAddr, lines: &str, dynamic: &Path) {
    let web = format!("entryPoints:\n  web:\n    address: \"{listen}\"\n");
    let text = format!(
        "{}\nglobal:\n  checkNewVersion: false\n  sendAnonymousUsage: false\nlog:\n  noColor: true\n",
        lines.replace("entryPoints:\n", &web)
    );
    std::fs::write(dir.join("traefik.yml"), text).unwrap();
    std::fs::create_dir_all(dynamic).unwrap();
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&certificate, CERTIFICATE).unwrap();
    std::fs::write(&key, KEY).unwrap();
    let store = format!(
        "tls:\n  stores:\n    default:\n      defaultCertificate:\n        certFile: {}\n        keyFile: {}\n",
        certificate.display(),
        key.display()
    );
    std::fs::write(dynamic.join("tls.yml"), store).unwrap();
}
