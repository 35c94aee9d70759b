//! What in an operator's own HAProxy files costs requests or information, as text: nothing of it keeps a release from working.

use super::Settings;
use crate::proxy::{Advice, files};
use crate::traffic::haproxy_log::LOG_FORMAT;

impl Settings {
    /// What could be better in the operator's own files.
    pub(super) fn hints(&self) -> Vec<Advice> {
        let mut text = String::new();
        for file in &self.config {
            match files::read(file) {
                Ok(Some(more)) => text.push_str(&more),
                // A directory of files, or one that only HAProxy may read: `haproxy -c` has its own word on it.
                Ok(None) | Err(_) => return vec![],
            }
            text.push('\n');
        }
        hints(&text, self)
    }
}

fn hints(text: &str, settings: &Settings) -> Vec<Advice> {
    let lines: Vec<&str> = text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()).collect();
    let has = |words: &str| lines.iter().any(|l| l.starts_with(words));
    let mut out = Vec::new();
    if !has("option idle-close-on-response") {
        out.push(Advice::better(
            "a reload of HAProxy closes connections that clients keep open, and a request on its way is lost",
            "add to the defaults section: option idle-close-on-response",
        ));
    }
    if !has("hard-stop-after") {
        out.push(Advice::better(
            "old workers of HAProxy live as long as a client keeps a connection, and a drain waits for them",
            "add to the global section: hard-stop-after 30s",
        ));
    }
    match settings.log {
        None => out.push(Advice::better(
            "there are no percentiles of response times, so slow candidates are not found: HAProxy counts means only",
            &format!(
                "add to the proxy's table: log = \"127.0.0.1:5140\", and to the frontend: log 127.0.0.1:5140 format raw \
                 local0 and log-format {LOG_FORMAT}"
            ),
        )),
        Some(log) => {
            let sent = lines.iter().any(|l| l.starts_with(&format!("log {log}")));
            if !sent || !text.contains(LOG_FORMAT) {
                out.push(Advice::better(
                    &format!("no frontend sends its log lines to {log}, so there are no percentiles of response times"),
                    &format!("add to the frontend: log {log} format raw local0 and log-format {LOG_FORMAT}"),
                ));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(log: Option<&str>) -> Settings {
        Settings {
            dir: "/d".into(),
            master_socket: "/m".into(),
            config: vec![],
            binary: "haproxy".into(),
            log: log.map(|l| l.parse().unwrap()),
        }
    }

    #[test]
    fn what_is_there_is_not_missed_and_a_comment_is_not_there() {
        let bare = hints("global\n  # hard-stop-after 30s\ndefaults\n  mode http\n", &settings(None));
        assert_eq!(bare.len(), 3, "{bare:?}");
        assert!(bare.iter().all(|a| !a.fails && !a.cure.is_empty()));
        let good = format!(
            "global\n hard-stop-after 30s\ndefaults\n option idle-close-on-response # yes\nfrontend f\n \
             log 127.0.0.1:5140 format raw local0\n log-format {LOG_FORMAT}\n"
        );
        assert_eq!(hints(&good, &settings(Some("127.0.0.1:5140"))), []);
        let elsewhere = hints(&good, &settings(Some("127.0.0.1:5141")));
        assert_eq!(elsewhere.len(), 1);
        assert!(elsewhere[0].cure.as_str().contains("log 127.0.0.1:5141 format raw local0"), "{elsewhere:?}");
    }
}
