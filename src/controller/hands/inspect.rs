//! Puts the questions of checks.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Hands;
use crate::checks::Question;
use crate::controller::input::Input;
use crate::fleet::names::{CheckName, RolloutId, ServiceName};

impl Hands {
    /// Puts a question again and again, for as long as the task is kept.
    pub fn inspect(
        self: &Arc<Self>,
        service: ServiceName,
        rollout: RolloutId,
        check: CheckName,
        question: Question,
    ) -> JoinHandle<()> {
        let me = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let asked_at = me.clock.now();
                let answered = question.ask(&me.http).await;
                let (service, rollout, check) = (service.clone(), rollout.clone(), check.clone());
                me.send(Input::Checked { service, check, rollout, asked_at, answered }).await;
                tokio::time::sleep(question.interval).await;
            }
        })
    }
}
