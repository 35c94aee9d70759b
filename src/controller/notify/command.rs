//! A receiver that is a program: JSON on its standard input, the same in short in its environment. It has a deadline, and
//! what it leaves running goes with it.

use std::time::Duration;

use super::news::News;
use crate::program;
use crate::text::Safe;

/// Runs it to its end.
///
/// # Errors
/// When it cannot be started, ends with something else than 0, or does not end in time.
pub async fn run(argv: &[String], news: &News, body: &[u8], timeout: Duration) -> Result<(), String> {
    let env = environment(news);
    let Ok(ended) = tokio::time::timeout(timeout, program::run(argv, &env, Some(body.to_vec()))).await else {
        return Err(format!("it did not end within {:.1}s and was killed", timeout.as_secs_f64()));
    };
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let ended = ended.map_err(|e| format!("{program} cannot be started: {e}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let last = Safe::capped(&ended.said, 200);
    let colon = if last.is_empty() { "" } else { ": " };
    Err(format!("it ended with {}{colon}{last}", ended.status))
}

fn environment(news: &News) -> Vec<(&'static str, String)> {
    let text = |t: &Option<Safe>| t.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        ("PILOTHOUSE_ID", news.id.clone()),
        ("PILOTHOUSE_EVENT", news.event.as_str().to_owned()),
        ("PILOTHOUSE_FLEET_NAME", news.fleet.to_string()),
        ("PILOTHOUSE_ENVIRONMENT", news.environment.to_string()),
        ("PILOTHOUSE_SERVICE", news.service.to_string()),
        ("PILOTHOUSE_ROLLOUT", news.rollout.to_string()),
        ("PILOTHOUSE_FROM", text(&news.from)),
        ("PILOTHOUSE_TO", news.to.to_string()),
        ("PILOTHOUSE_BY", news.by.to_string()),
        ("PILOTHOUSE_REASON", text(&news.reason)),
        ("PILOTHOUSE_TEXT", news.text.to_string()),
    ]
}
