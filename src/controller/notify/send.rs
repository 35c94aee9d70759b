//! One attempt to tell one receiver. What it says of a failure never holds an address or a token.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};

use super::command;
use super::news::News;
use crate::fleet::model::{Given, Notify, NotifyKind};
use crate::https::Client;
use crate::program;

/// A file with an address or a token is no longer than this, in bytes.
const SECRET: u64 = 8192;

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

/// Sees that a receiver could be told, and tells it nothing: an address is connected to, a program is looked for.
///
/// # Errors
/// What is wrong, in words.
pub async fn look(client: &Client, target: &Notify) -> Result<(), String> {
    let url = match &target.to {
        NotifyKind::Command { argv } => {
            let name = argv.first().map(String::as_str).unwrap_or_default();
            let there = program::find(name).map(drop);
            return there.ok_or_else(|| format!("{name} is no program on this machine"));
        }
        NotifyKind::Webhook { url, token, .. } => {
            token.as_ref().map(value).transpose()?;
            url
        }
        NotifyKind::Slack { url } => url,
    };
    let timeout = Duration::from_millis(target.timeout.0);
    in_time(timeout, client.reach(address(&value(url)?)?)).await
}

/// What comes of it within its time.
async fn in_time<T>(timeout: Duration, what: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_elapsed| Err(format!("no answer within {:.1}s", timeout.as_secs_f64()));
    tokio::time::timeout(timeout, what).await.unwrap_or_else(late)
}

/// Where to, when it is an address that may be asked.
fn address(url: &str) -> Result<Uri, String> {
    let url: Uri = url.parse().map_err(|_url| "its address is none: it begins with https:// and a host")?;
    if url.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("its address holds a user name, which is not sent; use token_file".to_owned());
    }
    Ok(url)
}

async fn post(
    client: &Client,
    url: &str,
    headers: HeaderMap,
    body: Vec<u8>,
    timeout: Duration,
) -> Result<(), String> {
    let url = address(url)?;
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url;
    *request.headers_mut() = headers;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let status = in_time(timeout, client.request(request)).await?.status();
    if status.is_success() {
        return Ok(());
    }
    // Somebody else's server does not decide where a token goes.
    let hint = if status.is_redirection() { ", and redirects are not followed" } else { "" };
    Err(format!("it answered {}{hint}", status.as_u16()))
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
