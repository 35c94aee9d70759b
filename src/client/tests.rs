//! The client against a real socket: streams, gaps, refusals, controllers that go away.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{Path as Segment, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::StreamExt as _;

use super::*;
use crate::api::{Change, ErrorCode};

type Seen = Arc<Mutex<Vec<(String, serde_json::Value)>>>;

struct Server {
    dir: tempfile::TempDir,
    seen: Seen,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }
}

fn hello(api: u32) -> Hello {
    Hello { api, version: "9".into(), fleet: "shop".into(), pid: 1, started_ms: 2 }
}

/// A controller that answers from a script; `stream` is its whole event stream, after which it says no more.
fn serve(api: u32, stream: &'static [&'static str], then_silent: bool) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::UnixListener::bind(dir.path().join("s")).unwrap();
    let seen = Seen::default();
    let verbs = |State(seen): State<Seen>,
                 Segment(service): Segment<String>,
                 Json(body): Json<serde_json::Value>| async move {
        let refuse = body["verb"] == "promote";
        seen.lock().unwrap().push((service, body));
        if refuse {
            let e = ApiError {
                code: ErrorCode::Stale,
                message: "moved on".into(),
                hint: Some("look again".into()),
            };
            return Err((StatusCode::CONFLICT, Json(e)));
        }
        Ok(Json(VerbReply { decision: 4, message: "\u{1b}[2Jaborting".into(), ..VerbReply::default() }))
    };
    let body = move || {
        let pieces = futures_util::stream::iter(stream.iter().map(|s| Ok::<_, std::io::Error>(*s)));
        if then_silent {
            Body::from_stream(pieces.chain(futures_util::stream::pending()))
        } else {
            Body::from_stream(pieces)
        }
    };
    let logs = move |Query(q): Query<std::collections::BTreeMap<String, String>>| async move {
        let line = format!("{{\"stderr\":true,\"text\":\"tail {} follow {}\"}}\n\n", q["tail"], q["follow"]);
        format!("{line}{{\"stderr\":false,\"text\":\"a\\u001b[31m\"}}\n")
    };
    let app = Router::new()
        .route("/v1/version", get(move || async move { Json(hello(api)) }))
        .route("/v1/snapshot", get(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "\u{7}boom") }))
        .route("/v1/services/{service}/verbs", post(verbs))
        .route("/v1/instances/{id}/logs", get(logs))
        .route("/v1/stream", get(move || async move { body() }))
        .with_state(seen.clone());
    let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server { dir, seen, task }
}

fn request(verb: Verb) -> VerbRequest {
    VerbRequest { verb, decision: Some(3), fleet_file: None, fleet_hash: None, by: None }
}

#[tokio::test]
async fn nobody_there_is_unreachable_and_says_where() {
    let dir = tempfile::tempdir().unwrap();
    let e = Client::connect(&dir.path().join("none")).await.unwrap_err();
    assert!(matches!(&e, ClientError::Unreachable { .. }), "{e:?}");
    assert!(e.to_string().contains("none") && e.to_string().contains("No such file"), "{e}");
}

#[tokio::test]
async fn verbs_reach_their_service_and_refusals_come_back() {
    let s = serve(API_VERSION, &[], false);
    let client = Client::connect(&s.socket()).await.unwrap();
    let reply = client.verb("we/b", &request(Verb::Abort)).await.unwrap();
    assert_eq!(reply.message.as_str(), "·[2Jaborting");
    let e = client.verb("web", &request(Verb::Promote { full: true })).await.unwrap_err();
    assert!(matches!(&e, ClientError::Refused(e) if e.code == ErrorCode::Stale), "{e:?}");
    let seen = s.seen.lock().unwrap();
    assert_eq!(seen[0].0, "we/b");
    assert_eq!(seen[1].1["decision"], 3);
    assert_eq!(seen[1].1["full"], true);
}

#[tokio::test]
async fn another_version_may_abort_and_nothing_else() {
    let s = serve(API_VERSION + 1, &[], false);
    let client = Client::connect(&s.socket()).await.unwrap();
    assert!(client.verb("web", &request(Verb::Abort)).await.is_ok());
    let e = client.verb("web", &request(Verb::Pause)).await.unwrap_err();
    assert_eq!(e, ClientError::Version { theirs: API_VERSION + 1, ours: API_VERSION });
    assert_eq!(s.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_no_refusal_is_garbled_and_clean() {
    let s = serve(API_VERSION, &[], false);
    let client = Client::connect(&s.socket()).await.unwrap();
    let e = client.snapshot().await.unwrap_err();
    assert!(e.to_string().ends_with("500 Internal Server Error: ·boom"), "{e}");
}

#[tokio::test]
async fn the_stream_gives_snapshot_and_deltas_and_then_ends() {
    let s = serve(
        API_VERSION,
        &[
            "event: delta\ndata: {\"seq\":7,\"changes\":[{\"alarms\":[\"x\"]}]}\n",
            "\n: ping\n\nevent: news\ndata: 1\n\n",
        ],
        false,
    );
    let client = Client::connect(&s.socket()).await.unwrap();
    let got: Vec<_> = client.stream("alice", true).await.unwrap().collect().await;
    let want = Delta { seq: 7, changes: vec![Change::Alarms(vec!["x".into()])] };
    assert_eq!(got, [Ok(Update::Delta(want))]);
}

#[tokio::test]
async fn silence_for_fifteen_seconds_is_a_lost_controller() {
    let s = serve(API_VERSION, &[": ping\n"], true);
    let client = Client::connect(&s.socket()).await.unwrap();
    let mut updates = client.stream("alice", false).await.unwrap();
    tokio::time::pause();
    let e = updates.next().await.unwrap().unwrap_err();
    assert!(matches!(e, ClientError::NoAnswer { .. }), "{e:?}");
    assert!(updates.next().await.is_none());
}

#[tokio::test]
async fn log_lines_are_entries_and_clean() {
    let s = serve(API_VERSION, &[], false);
    let client = Client::connect(&s.socket()).await.unwrap();
    let got: Vec<_> = client.logs("web-1", 50, false).await.unwrap().map(Result::unwrap).collect().await;
    assert_eq!(got.len(), 2);
    assert_eq!((got[0].stderr, got[0].text.as_str()), (true, "tail 50 follow false"));
    assert_eq!(got[1].text.as_str(), "a·[31m");
}
