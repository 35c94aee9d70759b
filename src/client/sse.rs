//! Lines and server-sent events out of a body that arrives in arbitrary pieces.
//!
//! Only what the controller sends is understood: `event:` and `data:` fields, comments, LF or CRLF.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt as _};

use super::{ClientError, garbled};

/// A body in pieces.
pub(super) type Body = BoxStream<'static, Result<Bytes, ClientError>>;

/// Splits a body into lines, at most `max` bytes each.
pub(super) struct Lines {
    body: Body,
    max: usize,
    pending: BytesMut,
    /// Bytes of `pending` that are known to hold no line end: a long line is searched once, not once per piece.
    searched: usize,
    ended: bool,
}

impl Lines {
    pub(super) fn new(body: Body, max: usize) -> Self {
        Self { body, max, pending: BytesMut::new(), searched: 0, ended: false }
    }

    /// The next line without its end; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<Vec<u8>, ClientError>> {
        loop {
            let tail = self.pending.get(self.searched..).unwrap_or_default();
            if let Some(at) = tail.iter().position(|&b| b == b'\n') {
                let end = self.searched + at;
                let line = self.pending.split_to(end + 1);
                self.searched = 0;
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                return Some(Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec()));
            }
            self.searched = self.pending.len();
            if self.ended {
                self.searched = 0;
                let line = std::mem::take(&mut self.pending).to_vec();
                return if line.is_empty() { None } else { Some(Ok(line)) };
            }
            if self.pending.len() > self.max {
                self.ended = true;
                self.pending.clear();
                self.searched = 0;
                return Some(Err(garbled("stream", &format!("a line of more than {} bytes", self.max))));
            }
            match self.body.next().await {
                Some(Ok(bytes)) => self.pending.extend_from_slice(&bytes),
                Some(Err(e)) => {
                    self.ended = true;
                    self.pending.clear();
                    self.searched = 0;
                    return Some(Err(e));
                }
                None => self.ended = true,
            }
        }
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) data: Vec<u8>,
}

/// Puts lines together to events. An event that the end cuts off is dropped.
pub(super) struct Events {
    lines: Lines,
    max: usize,
}

impl Events {
    pub(super) fn new(body: Body, max: usize) -> Self {
        Self { lines: Lines::new(body, max), max }
    }

    pub(super) async fn next(&mut self) -> Option<Result<Event, ClientError>> {
        let mut event = Event::default();
        let mut any = false;
        loop {
            let line = match self.lines.next().await? {
                Ok(line) => line,
                Err(e) => return Some(Err(e)),
            };
            if line.is_empty() {
                if any {
                    return Some(Ok(event));
                }
                event = Event::default();
            } else if let Some(value) = field(&line, b"event") {
                event.name = String::from_utf8_lossy(value).into_owned();
            } else if let Some(value) = field(&line, b"data") {
                if any {
                    event.data.push(b'\n');
                }
                any = true;
                event.data.extend_from_slice(value);
                if event.data.len() > self.max {
                    return Some(Err(garbled(
                        "stream",
                        &format!("an event of more than {} bytes", self.max),
                    )));
                }
            }
            // Anything else is a comment (`: ping`) or a field we have no use for.
        }
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(name)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn body(pieces: Vec<Vec<u8>>) -> Body {
        stream::iter(pieces.into_iter().map(|p| Ok(Bytes::from(p)))).boxed()
    }

    async fn all(pieces: Vec<Vec<u8>>) -> Vec<Event> {
        let mut events = Events::new(body(pieces), 1000);
        let mut out = Vec::new();
        while let Some(e) = events.next().await {
            out.push(e.unwrap());
        }
        out
    }

    #[tokio::test]
    async fn events_do_not_depend_on_where_the_pieces_are_cut() {
        let text = "event: snapshot\ndata: {\"a\":\"버전\"}\n\n: ping\n\nevent:delta\r\ndata: x\r\ndata: y\r\n\r\nevent: cut";
        let want = all(vec![text.into()]).await;
        assert_eq!(want.len(), 2);
        assert_eq!(want[0], Event { name: "snapshot".into(), data: "{\"a\":\"버전\"}".into() });
        assert_eq!(want[1], Event { name: "delta".into(), data: b"x\ny".to_vec() });
        for n in 1..text.len() {
            let pieces = text.as_bytes().chunks(n).map(<[u8]>::to_vec).collect();
            assert_eq!(all(pieces).await, want, "pieces of {n}");
        }
    }

    #[tokio::test]
    async fn an_endless_line_is_refused_and_not_kept() {
        let mut lines = Lines::new(body(vec![vec![b'x'; 600], vec![b'x'; 600]]), 1000);
        assert!(matches!(lines.next().await, Some(Err(ClientError::Garbled { .. }))));
        assert!(lines.next().await.is_none());
    }
}
