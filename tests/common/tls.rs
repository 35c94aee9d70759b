//! A server with a certificate that only those trust who are told to.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::world::World;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

/// Takes connections as `localhost`.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    pub fn new() -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file("server.pem")).unwrap().collect();
        let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.unwrap(), key)
            .unwrap();
        Self(Arc::new(config))
    }

    pub fn accept(&self, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
        StreamOwned::new(ServerConnection::new(Arc::clone(&self.0)).unwrap(), stream)
    }
}

/// A controller in the foreground, as an operator starts it: with an environment of its own, and trusting the server above or
/// not.
pub fn serve(world: &World, trusting: bool, env: &[(&str, &str)]) -> Child {
    let mut command = world.command(&["serve"]);
    command.envs(env.iter().copied());
    if trusting {
        command.env("SSL_CERT_FILE", file("ca.pem"));
    } else {
        command.env_remove("SSL_CERT_FILE");
    }
    let log = std::fs::File::create(world.path().join("serve.log")).unwrap();
    let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    world.wait("a controller", || world.snapshot());
    child
}
