//! Keeps the connection to the controller: connects, subscribes, passes on what comes, and starts over with growing
//! pauses when it breaks. A task of its own, so that no key can interrupt it half-way.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Notify, mpsc, watch};

use super::update::Msg;
use crate::client::{Client, ClientError};
use crate::text::Safe;

/// The first pause before trying again.
const FIRST: Duration = Duration::from_millis(250);
/// The longest.
const LONGEST: Duration = Duration::from_secs(3);

/// What the task needs.
#[derive(Clone, Debug)]
pub(super) struct Link {
    /// The controller's socket.
    pub(super) socket: PathBuf,
    /// What others see as our name.
    pub(super) name: Safe,
    /// Where news go. Bounded: when the screen is slow, nothing more is read from the socket.
    pub(super) news: mpsc::Sender<Msg>,
    /// Where the current client is put, for verbs and logs.
    pub(super) client: watch::Sender<Option<Client>>,
    /// Asks for a new subscription.
    pub(super) again: Arc<Notify>,
}

impl Link {
    /// Runs until the screen is gone.
    pub(super) async fn run(self) {
        let mut pause = FIRST;
        loop {
            let end = self.once(&mut pause).await;
            match end {
                End::ScreenGone => return,
                // A missed delta is nobody's fault; the answer is a new snapshot, at once.
                End::Again => continue,
                End::Lost(why) => {
                    self.client.send_replace(None);
                    if self.news.send(Msg::Lost(why)).await.is_err() {
                        return;
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    }

    async fn once(&self, pause: &mut Duration) -> End {
        let client = match Client::connect(&self.socket).await {
            Ok(client) => client,
            Err(e) => return End::Lost(why(&e)),
        };
        let mut updates = match client.stream(self.name.as_str(), true).await {
            Ok(updates) => updates,
            Err(e) => return End::Lost(why(&e)),
        };
        self.client.send_replace(Some(client));
        loop {
            let update = tokio::select! {
                biased;
                () = self.again.notified() => return End::Again,
                update = updates.next() => update,
            };
            match update {
                Some(Ok(update)) => {
                    *pause = FIRST;
                    if self.news.send(Msg::Update(update)).await.is_err() {
                        return End::ScreenGone;
                    }
                }
                Some(Err(e)) => return End::Lost(why(&e)),
                None => return End::Lost("the controller ended the connection".into()),
            }
        }
    }
}

fn why(e: &ClientError) -> Safe {
    match e {
        ClientError::NoAnswer { why, .. } => format!("no answer: {why}").into(),
        other => other.to_string().into(),
    }
}

enum End {
    Lost(Safe),
    Again,
    ScreenGone,
}
