//! Headers that a proxy must not pass on, and those it adds.

use std::net::SocketAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

/// The protocol a message wants to switch to.
pub(super) fn upgrade_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let wants = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| wants).cloned()
}

/// Takes out what concerns one connection only (RFC 9110, section 7.6.1).
pub(super) fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ] {
        headers.remove(name);
    }
}

/// Tells the instance who asked: the client's address is added to what proxies before this one said.
pub(super) fn forwarded(headers: &mut HeaderMap, client: SocketAddr, host: Option<&str>) {
    let name = HeaderName::from_static("x-forwarded-for");
    let before: Vec<&str> = headers.get_all(&name).iter().filter_map(|v| v.to_str().ok()).collect();
    let ip = client.ip().to_string();
    let chain = before.into_iter().chain([ip.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&chain) {
        headers.insert(name, value);
    }
    headers.entry(HeaderName::from_static("x-forwarded-proto")).or_insert(HeaderValue::from_static("http"));
    if let Some(value) = host.and_then(|h| HeaderValue::from_str(h).ok()) {
        headers.entry(HeaderName::from_static("x-forwarded-host")).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_concerns_one_connection_is_not_forwarded() {
        let mut h = headers(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ]);
        clean(&mut h);
        assert_eq!(h, headers(&[("accept", "*/*")]));
    }

    #[test]
    fn upgrades_need_both_headers() {
        assert!(
            upgrade_of(&headers(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]))
                .is_some()
        );
        assert!(upgrade_of(&headers(&[("upgrade", "h2c")])).is_none());
    }

    #[test]
    fn the_chain_of_clients_grows() {
        let mut h = headers(&[("x-forwarded-for", "10.1.1.1"), ("x-forwarded-proto", "https")]);
        forwarded(&mut h, "127.0.0.1:9".parse().unwrap(), Some("shop"));
        assert_eq!(h["x-forwarded-for"], "10.1.1.1, 127.0.0.1");
        assert_eq!(
            (&h["x-forwarded-proto"], &h["x-forwarded-host"]),
            (&"https".parse().unwrap(), &"shop".parse().unwrap())
        );
    }
}
