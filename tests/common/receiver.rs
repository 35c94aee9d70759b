//! A receiver of webhooks on loopback, with or without TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::tls::Tls;

/// What it was sent, as head and body.
type Got = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers 204 to everything.
pub struct Receiver {
    pub address: SocketAddr,
    got: Got,
}

impl Receiver {
    /// One that speaks plain HTTP.
    pub fn plain() -> Self {
        Self::start(talk)
    }

    /// One that has a certificate for `localhost`.
    pub fn tls() -> Self {
        let tls = Tls::new();
        Self::start(move |stream, got| talk(tls.accept(stream), got))
    }

    fn start(serve: impl Fn(TcpStream, &Got) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let got = Got::default();
        let kept = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                serve(stream.unwrap(), &kept);
            }
        });
        Self { address, got }
    }

    /// The bodies so far.
    pub fn bodies(&self) -> Vec<Value> {
        self.got.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    /// The heads so far.
    pub fn heads(&self) -> Vec<String> {
        self.got.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
    }

    /// The events so far, each with the version it is about.
    pub fn events(&self) -> Vec<String> {
        let text = |v: &Value, key: &str| v[key].as_str().unwrap_or_default().to_owned();
        self.bodies().iter().map(|b| format!("{} {}", text(b, "event"), text(b, "to"))).collect()
    }
}

/// One request. Whoever breaks off (a handshake that fails) was no request.
fn talk<S: Read + Write>(mut stream: S, got: &Got) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    let (head, body) = loop {
        let Ok(n @ 1..) = stream.read(&mut buffer) else { return };
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str::<Value>(body)
        {
            break (head.to_owned(), body);
        }
    };
    got.lock().unwrap().push((head, body));
    let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    let _ = stream.flush();
}
