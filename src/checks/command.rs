//! A program that says whether all is well: 0 is good, 1 is bad, everything else is no answer.

use std::collections::BTreeMap;

use crate::program;
use crate::rollout::world::Answer;

pub(super) async fn ask(argv: &[String], env: &BTreeMap<&'static str, String>) -> (Answer, String) {
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.clone())).collect();
    let ended = match program::run(argv, &env, None).await {
        Ok(ended) => ended,
        Err(e) => {
            let program = argv.first().map(String::as_str).unwrap_or_default();
            return (Answer::Unknown, format!("cannot run {program}: {e}"));
        }
    };
    let said = ended.said;
    let or = |what: &str| if said.is_empty() { what.to_owned() } else { said.clone() };
    let with = |what: String| if said.is_empty() { what } else { format!("{what}: {said}") };
    match ended.status.code() {
        Some(0) => (Answer::Good, or("exit code 0")),
        Some(1) => (Answer::Bad, or("exit code 1")),
        Some(code) => (Answer::Unknown, with(format!("exit code {code}"))),
        None => (Answer::Unknown, with("ended by a signal".into())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    async fn sh(script: &str) -> (Answer, String) {
        let argv = ["sh".to_owned(), "-c".into(), script.to_owned()];
        ask(&argv, &BTreeMap::from([("PILOTHOUSE_VERSION", "1.5.0".to_owned())])).await
    }

    #[tokio::test]
    async fn the_exit_code_is_the_answer_and_the_last_line_its_words() {
        let all = [
            ("echo first; echo \"$PILOTHOUSE_VERSION is fine\"", Answer::Good, "1.5.0 is fine"),
            ("echo late >&2; exit 1", Answer::Bad, "late"),
            ("exit 1", Answer::Bad, "exit code 1"),
            ("exit 2", Answer::Unknown, "exit code 2"),
            ("kill -9 $$", Answer::Unknown, "ended by a signal"),
            ("yes | head -c 1000000; echo; echo end", Answer::Good, "end"),
        ];
        for (script, answer, words) in all {
            assert_eq!(sh(script).await, (answer, words.to_owned()), "{script}");
        }
        let (answer, words) = ask(&["/nonexistent/x".to_owned()], &BTreeMap::new()).await;
        assert_eq!(answer, Answer::Unknown);
        assert!(words.starts_with("cannot run /nonexistent/x"), "{words}");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_keeps_nobody_waiting_and_is_ended() {
        let started = Instant::now();
        let (answer, child) = sh("sleep 60 & echo $!; exit 1").await;
        assert_eq!(answer, Answer::Bad);
        assert!(started.elapsed() < Duration::from_secs(30), "it waited for the child");
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|state| state.starts_with(['S', 'R', 'D']))
        };
        while lives() && started.elapsed() < Duration::from_secs(30) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!lives(), "the child lived on");
    }
}
