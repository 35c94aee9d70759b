use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::news::sample;
use super::*;
use crate::fleet::model::{Given, NotifyEvent, NotifyKind};
use crate::fleet::names::Millis;
use crate::rollout::simulation::fixture;

/// What a receiver does with a request.
#[derive(Clone, Copy)]
enum Does {
    Answer(u16),
    Close,
    Hang,
}

/// A receiver that does what it is told to in turn, then the last again and again.
struct Receiver {
    url: String,
    got: Arc<Mutex<Vec<String>>>,
}

impl Receiver {
    async fn start(script: &'static [Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks/s3cret", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let (kept, n) = (Arc::clone(&got), AtomicUsize::new(0));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let does = script[n.fetch_add(1, Ordering::Relaxed).min(script.len() - 1)];
                let kept = Arc::clone(&kept);
                tokio::spawn(async move {
                    let (mut text, mut buffer) = (String::new(), [0; 4096]);
                    while !text.ends_with('}') {
                        let n = stream.read(&mut buffer).await.unwrap();
                        assert!(n > 0, "{text}");
                        text += std::str::from_utf8(&buffer[..n]).unwrap();
                    }
                    kept.lock().unwrap().push(text);
                    match does {
                        Does::Answer(status) => {
                            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                            stream.write_all(answer.as_bytes()).await.unwrap();
                        }
                        Does::Close => {}
                        Does::Hang => std::future::pending().await,
                    }
                });
            }
        });
        Self { url, got }
    }

    fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }

    /// The numbers of the facts that it was told, in order, repetitions and all.
    fn told(&self) -> Vec<u64> {
        let seq = |text: &String| text.split("\"id\":\"shop-").nth(1)?.split('-').next()?.parse().ok();
        self.got().iter().filter_map(seq).collect()
    }
}

fn fleet(to: NotifyKind, retry_for: Millis) -> Fleet {
    let mut fleet = fixture::fleet(1, 1, 1, fixture::steps(&[(5, None)]));
    let name: TargetName = "ops".parse().unwrap();
    let events = NotifyEvent::ALL.into();
    let timeout = Millis(400);
    fleet.notify.insert(name.clone(), Notify { name, to, events, services: Vec::new(), timeout, retry_for });
    fleet
}

fn webhook(url: &str) -> NotifyKind {
    NotifyKind::Webhook { url: Given::Plain(url.to_owned()), token: None, token_header: None }
}

/// One that does not wait long between attempts.
fn open(dir: &Path) -> (Notifier, mpsc::Receiver<Input>) {
    let (tx, rx) = mpsc::channel(64);
    let mut notifier = Notifier::open(dir, tx);
    notifier.pause = Duration::from_millis(20);
    (notifier, rx)
}

async fn until(what: &str, check: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < patience, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn numbers(notifier: &Notifier) -> Told {
    notifier.told().into_values().next().unwrap()
}

fn some(seqs: std::ops::RangeInclusive<u64>) -> Vec<News> {
    seqs.map(|seq| sample(seq, NotifyEvent::Phase)).collect()
}

#[tokio::test]
async fn what_fails_is_told_again_and_everything_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let script = &[Does::Answer(500), Does::Close, Does::Hang, Does::Answer(302), Does::Answer(204)];
    let receiver = Receiver::start(script).await;
    let (mut notifier, _rx) = open(dir.path());
    notifier.targets(&fleet(webhook(&receiver.url), Millis::secs(60)), 0);
    notifier.tell(&some(1..=3));
    until("all is delivered", || numbers(&notifier).delivered == 3).await;
    assert_eq!(receiver.told(), [1, 1, 1, 1, 1, 2, 3]);
    assert_eq!(numbers(&notifier), Told { delivered: 3, given_up: 0, failed_attempts: 4, waiting: 0 });
    let first = receiver.got().remove(0);
    assert!(first.starts_with("POST /hooks/s3cret HTTP/1.1\r\n"), "{first}");
    for header in [
        "pilothouse-event: phase",
        "pilothouse-delivery: shop-1-1790000000000",
        "content-type: application/json",
    ] {
        assert!(first.contains(&format!("{header}\r\n")), "{first}");
    }
    assert!(notifier.trouble().is_empty());
}

#[tokio::test]
async fn what_cannot_be_told_in_time_is_given_up_and_said_once() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        &[Does::Answer(503), Does::Answer(503), Does::Answer(503), Does::Answer(503), Does::Answer(200)];
    let receiver = Receiver::start(script).await;
    let (mut notifier, mut rx) = open(dir.path());
    // One attempt each: the pause before the second would be too late.
    notifier.targets(&fleet(webhook(&receiver.url), Millis(1)), 0);
    notifier.tell(&some(1..=1));
    until("the first is given up", || numbers(&notifier).given_up == 1).await;
    notifier.tell(&some(2..=4));
    until("all are", || numbers(&notifier).given_up == 4).await;
    assert_eq!(receiver.told(), [1, 2, 3, 4]);
    let Some(Input::Untold { target, attempts, error }) = rx.recv().await else { panic!("nobody is told") };
    assert_eq!((target.as_str(), attempts), ("ops", 1));
    assert_eq!(error.as_str(), "phase of web-2 is given up: it answered 503");
    assert!(rx.try_recv().is_err(), "once for all of them");
    let trouble = notifier.trouble();
    assert_eq!(trouble.len(), 1);
    assert_eq!(trouble[0].as_str(), "notify ops is not told: it answered 503 (4 given up)");
    notifier.tell(&some(5..=5));
    until("it works again", || numbers(&notifier).delivered == 1).await;
    assert!(notifier.trouble().is_empty());
}

#[tokio::test]
async fn nobody_there_is_no_secret_told() {
    let dir = tempfile::tempdir().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (mut notifier, mut rx) = open(dir.path());
    notifier.targets(&fleet(webhook(&format!("http://{free}/s3cret?token=s3cret")), Millis(1)), 0);
    notifier.tell(&some(1..=1));
    let Some(Input::Untold { error, .. }) = rx.recv().await else { panic!("nobody is told") };
    assert!(error.as_str().contains("refused"), "{error}");
    assert!(!error.as_str().contains("s3cret"), "{error}");
}

#[tokio::test]
async fn tokens_and_chat_lines_are_as_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        Given::File(path)
    };
    let receiver = Receiver::start(&[Does::Answer(200)]).await;
    let url = || file("url", &format!("{}\n", receiver.url));
    let token = || Some(file("token", "t0ken\n"));
    let kinds = [
        NotifyKind::Webhook { url: url(), token: token(), token_header: None },
        NotifyKind::Webhook { url: url(), token: token(), token_header: Some("X-Token".into()) },
        NotifyKind::Slack { url: url() },
    ];
    let (mut notifier, _rx) = open(dir.path());
    for (n, kind) in (1..).zip(kinds) {
        notifier.targets(&fleet(kind, Millis::secs(60)), 0);
        notifier.tell(&some(n..=n));
        until("it is delivered", || numbers(&notifier).delivered == n).await;
    }
    let got = receiver.got();
    assert!(got[0].contains("\r\nauthorization: Bearer t0ken\r\n"), "{}", got[0]);
    assert!(got[1].contains("\r\nx-token: t0ken\r\n") && !got[1].contains("Bearer"), "{}", got[1]);
    let body = got[2].split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body, r#"{"text":"[shop staging] web: phase 2 of 5: 25%"}"#);
}

#[tokio::test]
async fn a_queue_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Does::Hang]).await;
    let (mut notifier, _rx) = open(dir.path());
    notifier.targets(&fleet(webhook(&receiver.url), Millis::secs(60)), 0);
    notifier.tell(&some(1..=300));
    let told = numbers(&notifier);
    assert_eq!((told.waiting, told.given_up), (QUEUE, 100), "the newest are kept");
}

#[tokio::test]
async fn another_controller_tells_what_is_left_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[Does::Answer(200)]).await;
    let fleet = fleet(webhook(&receiver.url), Millis::secs(60));
    let (mut one, _rx) = open(dir.path());
    for old in some(1..=4) {
        one.before(old);
    }
    one.targets(&fleet, 4);
    one.tell(&some(5..=6));
    until("the first has told two", || numbers(&one).delivered == 2).await;
    until("it is remembered", || Cursors::open(dir.path()).0.of("ops") == Some(6)).await;
    drop(one);
    let (mut two, _rx) = open(dir.path());
    for old in some(1..=8) {
        two.before(old);
    }
    two.targets(&fleet, 8);
    until("the second has told the rest", || numbers(&two).delivered == 2).await;
    assert_eq!(receiver.told(), [5, 6, 7, 8], "what was before it was declared is told nobody");

    std::fs::write(dir.path().join("notify.json"), "{").unwrap();
    let (mut three, _rx) = open(dir.path());
    assert!(three.trouble()[0].as_str().contains("notify.json cannot be read"));
    three.before(sample(8, NotifyEvent::Phase));
    three.targets(&fleet, 8);
    three.tell(&some(9..=9));
    until("it tells what comes", || numbers(&three).delivered == 1).await;
    assert_eq!(receiver.told(), [5, 6, 7, 8, 9]);
}

fn sh(script: &str) -> NotifyKind {
    NotifyKind::Command { argv: ["/bin/sh", "-c", script].map(str::to_owned).into() }
}

#[tokio::test]
async fn a_command_gets_json_and_variables_and_is_run_again_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let script = format!(
        "cat > {at}/$PILOTHOUSE_ID.json; echo \"$PILOTHOUSE_EVENT $PILOTHOUSE_SERVICE $PILOTHOUSE_TO\" >> {at}/lines; \
         echo no >&2; test $(wc -l < {at}/lines) -gt 1"
    );
    let (mut notifier, _rx) = open(dir.path());
    notifier.targets(&fleet(sh(&script), Millis::secs(60)), 0);
    notifier.tell(&some(1..=1));
    until("it is delivered", || numbers(&notifier).delivered == 1).await;
    assert_eq!(numbers(&notifier).failed_attempts, 1);
    let lines = std::fs::read_to_string(dir.path().join("lines")).unwrap();
    assert_eq!(lines, "phase web 1.5.0\nphase web 1.5.0\n");
    let json = std::fs::read(dir.path().join("shop-1-1790000000000.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&json["schema"], &json["event"]), (&1.into(), &"phase".into()));
}

#[tokio::test]
async fn a_command_that_does_not_end_goes_with_all_it_started() {
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    // It writes without end as well: that is read, and not kept.
    let script = format!("sleep 1000 & echo $! $$ > {}; yes", pids.display());
    let (mut notifier, mut rx) = open(dir.path());
    notifier.targets(&fleet(sh(&script), Millis(1)), 0);
    notifier.tell(&some(1..=1));
    let Some(Input::Untold { error, .. }) = rx.recv().await else { panic!("nobody is told") };
    assert!(error.as_str().ends_with("it did not end within 0.4s and was killed"), "{error}");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.split_whitespace().count(), 2, "{pids}");
    for pid in pids.split_whitespace() {
        // What is killed may stay a zombie until somebody asks for its end.
        let dead =
            || std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "));
        until("it is gone", dead).await;
    }
}

#[tokio::test]
async fn a_command_that_fails_says_its_last_line() {
    let dir = tempfile::tempdir().unwrap();
    let (mut notifier, mut rx) = open(dir.path());
    notifier.targets(&fleet(sh("echo one >&2; echo two >&2; exit 3"), Millis(1)), 0);
    notifier.tell(&some(1..=1));
    let Some(Input::Untold { error, .. }) = rx.recv().await else { panic!("nobody is told") };
    assert!(error.as_str().ends_with("it ended with exit status: 3: two"), "{error}");
}
