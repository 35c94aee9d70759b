//! Somebody else's server, asked over HTTP or HTTPS: fresh connections, no proxy, no redirection.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper::service::Service as _;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tokio::sync::OnceCell;

/// What is read of an answer, in bytes.
const BODY: usize = 65_536;

type Connector = HttpsConnector<HttpConnector>;
type Made = (Connector, legacy::Client<Connector, Full<Bytes>>);

/// The machine's root certificates are read when it is used first.
#[derive(Default)]
pub struct Client {
    made: Arc<OnceCell<Made>>,
}

/// There are no deadlines: those are the caller's. Errors are words without the address.
impl Client {
    async fn made(&self) -> Result<&Made, String> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let make = async || {
            let connector = tokio::task::spawn_blocking(connector).await.map_err(|e| e.to_string())??;
            let client = legacy::Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(0)
                .build(connector.clone());
            Ok::<_, String>((connector, client))
        };
        // In a task of its own: who asks may have no time left before it is done, and the next finds it done.
        let cell = Arc::clone(&self.made);
        let made = tokio::spawn(async move { cell.get_or_try_init(make).await.map(drop) });
        made.await.map_err(|e| e.to_string())??;
        self.made.get().ok_or_else(|| "there is no client".to_owned())
    }

    /// Sends a request, in the name of Pilothouse.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn request(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let agent = HeaderValue::from_static(concat!("pilothouse/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        let (_, client) = self.made().await?;
        client.request(request).await.map_err(|e| match e.is_connect() {
            true => format!("no connection: {}", innermost(&e)),
            false => innermost(&e),
        })
    }

    /// Status and the beginning of the body of a URL.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub async fn get(&self, url: &str) -> Result<(u16, String), String> {
        let request = Request::get(url).body(Full::default()).map_err(|e| format!("no URL: {e}"))?;
        let answer = self.request(request).await?;
        let status = answer.status().as_u16();
        let (mut answer, mut body) = (answer.into_body(), Vec::new());
        while body.len() < BODY {
            match answer.frame().await {
                Some(Ok(frame)) => body.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(e)) => return Err(format!("the answer broke off: {e}")),
                None => break,
            }
        }
        body.truncate(BODY);
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Connects to who would be asked, with the handshake of https, and asks nothing.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn reach(&self, url: Uri) -> Result<(), String> {
        let (connector, _) = self.made().await?;
        let connected = TowerToHyperService::new(connector.clone()).call(url).await;
        connected.map(drop).map_err(|e| innermost(e.as_ref()))
    }
}

/// With the roots that the machine trusts (`SSL_CERT_FILE` names others), so that a server inside may have a certificate of
/// the house. Without any only `http://` works, and `https://` says that the issuer is unknown.
fn connector() -> Result<Connector, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
}

/// The innermost reason: the outer ones say only that something did not work.
fn innermost(e: &dyn std::error::Error) -> String {
    let mut inner = e;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
