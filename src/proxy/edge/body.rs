//! Bodies on their way through, and what is counted when they end.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::table::{Endpoint, Stats};

/// Milliseconds since `start`.
pub(super) fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A client's body, which can be given to another instance as long as the first never asked for it.
pub(super) struct Upload {
    /// As it comes.
    pub(super) body: Mutex<Incoming>,
    /// Whether an attempt asked for it.
    pub(super) started: AtomicBool,
    /// When it last moved.
    pub(super) moved_ms: AtomicU64,
}

/// The body of one attempt.
pub(super) struct UpBody(pub(super) Arc<Upload>, pub(super) Instant);

impl Body for UpBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.started.store(true, Ordering::Relaxed);
        let mut body = self.0.body.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = Pin::new(&mut *body).poll_frame(cx);
        if frame.is_ready() {
            self.0.moved_ms.store(millis(self.1), Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner).is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.lock().unwrap_or_else(PoisonError::into_inner).size_hint()
    }
}

/// What the client gets.
pub(super) enum DownBody {
    /// The edge's own words.
    Text(Full<Bytes>),
    /// An instance's, counted until it has ended.
    Upstream {
        /// As it comes.
        body: Incoming,
        /// Lets go at the end.
        guard: Guard,
    },
}

impl Body for DownBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Text(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Upstream { body, guard } => {
                let frame = Pin::new(body).poll_frame(cx);
                if let Poll::Ready(Some(Err(_))) = &frame {
                    guard.broken = true;
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(body) => body.is_end_stream(),
            Self::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(body) => body.size_hint(),
            Self::Upstream { body, .. } => body.size_hint(),
        }
    }
}

/// Counts one attempt at one instance: in flight until dropped, then as what it was.
pub(super) struct Guard {
    stats: Arc<Stats>,
    start: Instant,
    /// What the instance answered.
    pub(super) status: Option<StatusCode>,
    client: IpAddr,
    broken: bool,
    retry: bool,
}

impl Guard {
    /// One more in flight at `endpoint`, for `client`.
    pub(super) fn new(endpoint: &Endpoint, client: IpAddr) -> Self {
        endpoint.stats.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            stats: Arc::clone(&endpoint.stats),
            start: Instant::now(),
            status: None,
            client,
            broken: false,
            retry: false,
        }
    }

    /// The attempt failed for good.
    pub(super) fn failed(mut self) {
        self.broken = true;
    }

    /// The attempt failed and is made again elsewhere.
    pub(super) fn retried(mut self) {
        self.retry = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let us = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.stats.count(|c| {
            if self.retry {
                c.retries += 1;
                return;
            }
            let failed = self.broken || self.status.is_some_and(|s| s.is_server_error());
            c.requests += 1;
            c.errors += u64::from(failed);
            c.count_client(self.client, failed);
            // A tunnel's life and a client that went away say nothing about speed.
            if self.status.is_some_and(|s| s != StatusCode::SWITCHING_PROTOCOLS) {
                c.latency.record(us);
            }
        });
        self.stats.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one connection until dropped.
pub(super) struct Open(Arc<AtomicU64>);

impl Open {
    /// One more in `count`.
    pub(super) fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
