//! One attempt to tell one receiver. What it says of a failure never holds an address or a token.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::OnceCell;

use super::command;
use super::news::News;
use crate::fleet::model::{Given, Notify, NotifyKind};

/// A file with an address or a token is no longer than this, in bytes.
const SECRET: u64 = 8192;

type Http = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What webhooks are sent with. The machine's root certificates are read when the first one is sent.
#[derive(Default)]
pub struct Client {
    http: OnceCell<Http>,
}

impl Client {
    async fn http(&self) -> Result<&Http, String> {
        let make = async {
            let made = tokio::task::spawn_blocking(http).await;
            made.map_err(|e| e.to_string())?
        };
        self.http.get_or_try_init(|| make).await
    }
}

/// With the roots that the machine trusts (`SSL_CERT_FILE` names others), so that a receiver inside may have a certificate
/// of the house. Without any only `http://` works, and `https://` says that the issuer is unknown.
fn http() -> Result<Http, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector))
}

/// Tells `target`; the error says why not.
///
/// # Errors
/// What went wrong, in words.
pub async fn send(client: &Client, target: &Notify, news: &News) -> Result<(), String> {
    let timeout = Duration::from_millis(target.timeout.0);
    let body = serde_json::to_vec(news).map_err(|e| e.to_string())?;
    match &target.to {
        NotifyKind::Webhook { url, token, token_header } => {
            let headers = headers(news, token.as_ref(), token_header.as_deref())?;
            post(client, &value(url)?, headers, body, timeout).await
        }
        NotifyKind::Slack { url } => {
            let text = serde_json::json!({ "text": slack(&news.line()) }).to_string();
            post(client, &value(url)?, HeaderMap::new(), text.into_bytes(), timeout).await
        }
        NotifyKind::Command { argv } => command::run(argv, news, &body, timeout).await,
    }
}

fn headers(news: &News, token: Option<&Given>, name: Option<&str>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert("pilothouse-event", HeaderValue::from_static(news.event.as_str()));
    if let Ok(id) = HeaderValue::from_str(&news.id) {
        headers.insert("pilothouse-delivery", id);
    }
    if let Some(token) = token {
        let token = value(token)?;
        let (name, text) = match name {
            Some(name) => (name.parse::<HeaderName>().map_err(|_name| "token_header is no header")?, token),
            None => (AUTHORIZATION, format!("Bearer {token}")),
        };
        let mut secret = HeaderValue::from_str(&text)
            .map_err(|_value| "the token has characters that no header may have")?;
        secret.set_sensitive(true);
        headers.insert(name, secret);
    }
    Ok(headers)
}

async fn post(
    client: &Client,
    url: &str,
    headers: HeaderMap,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<(), String> {
    let url: Uri = url.parse().map_err(|_url| "its address is none: it begins with https:// and a host")?;
    if url.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("its address holds a user name, which is not sent; use token_file".to_owned());
    }
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url;
    *request.headers_mut() = headers;
    let fixed =
        [(CONTENT_TYPE, "application/json"), (USER_AGENT, concat!("pilothouse/", env!("CARGO_PKG_VERSION")))];
    for (name, value) in fixed {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let http = client.http().await?;
    let Ok(answer) = tokio::time::timeout(timeout, http.request(request)).await else {
        return Err(format!("no answer within {:.1}s", timeout.as_secs_f64()));
    };
    let status = answer.map_err(|e| innermost(&e))?.status();
    if status.is_success() {
        return Ok(());
    }
    // Somebody else's server does not decide where a token goes.
    let hint = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    Err(format!("it answered {}{hint}", status.as_u16()))
}

/// The innermost reason: the outer ones say only that something did not work.
fn innermost(e: &dyn std::error::Error) -> String {
    let mut inner = e;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// What Slack reads as markup is escaped.
fn slack(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text itself, read each time: a secret may be changed at any moment.
fn value(given: &Given) -> Result<String, String> {
    let text = match given {
        Given::Plain(text) => text.clone(),
        Given::Env(name) => std::env::var(name).map_err(|_unset| {
            format!("{name} is not set in the controller's environment; one in the background has none: use 'pilothouse serve', or a file")
        })?,
        Given::File(path) => first_line(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?,
    };
    let text = text.trim().to_owned();
    if text.is_empty() { Err(format!("{} is empty", place(given))) } else { Ok(text) }
}

fn place(given: &Given) -> String {
    match given {
        Given::Plain(_) => "the address".to_owned(),
        Given::Env(name) => name.clone(),
        Given::File(path) => path.display().to_string(),
    }
}

fn first_line(path: &Path) -> std::io::Result<String> {
    // A FIFO or a device would block or never end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    std::fs::File::open(path)?.take(SECRET).read_to_string(&mut text)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_what_is_said_of_them_is_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "  https://hooks.example/T0/secret \nsecond\n").unwrap();
        assert_eq!(value(&Given::File(file.clone())).unwrap(), "https://hooks.example/T0/secret");
        std::fs::write(&file, "\n").unwrap();
        assert!(value(&Given::File(file)).unwrap_err().ends_with("url is empty"));
        assert!(value(&Given::File(dir.path().into())).unwrap_err().contains("not a regular file"));
        assert!(value(&Given::Env("NOBODY_SETS_THIS".into())).unwrap_err().contains("pilothouse serve"));
    }

    #[test]
    fn slack_gets_no_markup_of_others() {
        assert_eq!(slack("<!channel> a & b"), "&lt;!channel&gt; a &amp; b");
    }
}
