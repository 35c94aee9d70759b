//! What an instance that failed wrote last, before it is stopped and its log goes with it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::Hands;
use crate::controller::input::Input;
use crate::fleet::model::Host;
use crate::fleet::names::{InstanceId, RolloutId, ServiceName};
use crate::text::Safe;

/// Lines that are kept.
const LINES: usize = 5;
/// Characters of each: enough for an error, too few for a dump.
const CHARS: usize = 200;
/// Longest wait for them; nothing waits for it.
const WITHIN: Duration = Duration::from_secs(3);

impl Hands {
    /// Reads the last lines of an instance in the background.
    pub fn last_words(
        self: &Arc<Self>,
        host: &Host,
        service: ServiceName,
        rollout: RolloutId,
        instance: InstanceId,
    ) {
        let (me, engine) = (Arc::clone(self), self.engine(host));
        tokio::spawn(async move {
            let read = async {
                let lines = engine.logs(&me.fleet, &instance, LINES, false).await.ok()?;
                Some(
                    lines.map(|l| Safe::capped(l.text.as_str(), CHARS)).take(LINES).collect::<Vec<_>>().await,
                )
            };
            let lines = tokio::time::timeout(WITHIN, read).await.ok().flatten().unwrap_or_default();
            if !lines.is_empty() {
                me.send(Input::LastWords { service, rollout, instance, lines }).await;
            }
        });
    }
}
