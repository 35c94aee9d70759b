//! Asks the checks of a release: a Prometheus, a URL or a command. What is not a clear answer is unknown.

mod command;
mod prometheus;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::Uri;
use reqwest::Url;

use crate::fleet::model::{Ask, CHECK_PLACEHOLDERS, Check};
use crate::fleet::names::{FleetName, RevisionId, RolloutId, ServiceName, Version};
use crate::https::Client;
use crate::program;
use crate::rollout::world::Answer;
use crate::text::Safe;

/// What is shown of an answer, in characters.
const WORDS: usize = 120;

/// What a check came to, and in which words.
pub type Answered = (Answer, Safe);

/// A check with everything filled in: what is asked, literally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    ask: Ask,
    timeout: Duration,
    /// From the end of one question to the next.
    pub interval: Duration,
    /// What a command is told in its environment.
    env: BTreeMap<&'static str, String>,
}

/// What the placeholders stand for.
struct Values(Vec<(&'static str, String)>);

impl Values {
    fn fill(&self, text: &str, encode: fn(&str) -> String) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let known = self.0.iter().find(|(name, _)| {
                from.get(1..).and_then(|f| f.strip_prefix(name)).is_some_and(|f| f.starts_with('}'))
            });
            let skip = match known {
                Some((name, value)) => {
                    out.push_str(&encode(value));
                    name.len() + 2
                }
                None => {
                    out.push('{');
                    1
                }
            };
            rest = from.get(skip..).unwrap_or_default();
        }
        out.push_str(rest);
        out
    }
}

/// Every character that has no meaning in a URL, as it is; all others encoded.
fn in_url(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Addresses as a regular expression, written so that it means the same in every kind of quotes.
fn pattern(addresses: &[SocketAddr]) -> String {
    let one = |c: char| match c {
        '[' => "[[]".to_owned(),
        ']' => "[]]".to_owned(),
        '.' => "[.]".to_owned(),
        c => c.to_string(),
    };
    let mut all: Vec<String> = addresses.iter().map(|at| at.to_string().chars().map(one).collect()).collect();
    all.sort();
    all.join("|")
}

/// What a question is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The fleet.
    pub fleet: FleetName,
    /// The service.
    pub service: ServiceName,
    /// The rollout.
    pub rollout: RolloutId,
    /// The candidate: version, revision, where its instances are.
    pub candidate: (Version, RevisionId, Vec<SocketAddr>),
    /// The same of what serves.
    pub stable: (Version, RevisionId, Vec<SocketAddr>),
}

impl Question {
    /// What a check asks about its subject.
    #[must_use]
    pub fn new(check: &Check, about: &Subject) -> Self {
        let (version, revision, candidates) = &about.candidate;
        let (stable_version, stable_revision, stables) = &about.stable;
        let values = Values(vec![
            ("fleet", about.fleet.to_string()),
            ("service", about.service.to_string()),
            ("version", version.to_string()),
            ("stable_version", stable_version.to_string()),
            ("revision", revision.to_string()),
            ("stable_revision", stable_revision.to_string()),
            ("rollout", about.rollout.to_string()),
            ("candidates", pattern(candidates)),
            ("stables", pattern(stables)),
        ]);
        Self::filled(check, &values)
    }

    fn filled(check: &Check, values: &Values) -> Self {
        let plain = |text: &str| values.fill(text, str::to_owned);
        let ask = match &check.ask {
            Ask::Prometheus { url, query, min, max } => {
                Ask::Prometheus { url: values.fill(url, in_url), query: plain(query), min: *min, max: *max }
            }
            Ask::Http { url } => Ask::Http { url: values.fill(url, in_url) },
            Ask::Command { argv } => Ask::Command { argv: argv.iter().map(|a| plain(a)).collect() },
        };
        const TOLD: [(&str, &str); 6] = [
            ("fleet", "PILOTHOUSE_FLEET_NAME"),
            ("service", "PILOTHOUSE_SERVICE"),
            ("version", "PILOTHOUSE_VERSION"),
            ("stable_version", "PILOTHOUSE_STABLE_VERSION"),
            ("rollout", "PILOTHOUSE_ROLLOUT"),
            ("candidates", "PILOTHOUSE_CANDIDATES"),
        ];
        let env = TOLD.iter().filter_map(|(word, name)| {
            Some((*name, values.0.iter().find(|(known, _)| known == word)?.1.clone()))
        });
        let (timeout, interval) = (check.timeout.duration(), check.interval.duration());
        Self { env: env.collect(), ask, timeout, interval }
    }

    fn too_late(&self) -> String {
        format!("no answer within {} ms", self.timeout.as_millis())
    }

    /// Asks once; ends within the check's timeout and a moment.
    pub async fn ask(&self, http: &Client) -> Answered {
        let asked = async {
            match &self.ask {
                Ask::Prometheus { url, query, min, max } => {
                    prometheus::ask(http, url, query, *min, *max).await
                }
                Ask::Http { url } => get(http, url).await,
                Ask::Command { argv } => command::ask(argv, &self.env).await,
            }
        };
        let (answer, words) = tokio::time::timeout(self.timeout, asked)
            .await
            .unwrap_or_else(|_elapsed| (Answer::Unknown, self.too_late()));
        (answer, Safe::new(&words.chars().take(WORDS).collect::<String>()))
    }
}

/// What is found out about a check while nothing is released.
#[derive(Debug)]
pub enum Found {
    /// It could be asked, and said this.
    Answered(Answered),
    /// It asks about a release; whoever will be asked is there.
    There,
    /// Whoever would be asked is not there; why.
    Missing(Safe),
}

/// Looks at a check without a release: asks what names nothing of one, and otherwise sees only that whoever will be asked is
/// there. A program is never run. Ends within the check's timeout and a moment.
pub async fn look(check: &Check, fleet: &FleetName, service: &ServiceName, http: &Client) -> Found {
    let values = Values(vec![("fleet", fleet.to_string()), ("service", service.to_string())]);
    let question = Question::filled(check, &values);
    let of_a_release =
        |text: &str| CHECK_PLACEHOLDERS.iter().any(|word| text.contains(&format!("{{{word}}}")));
    let there = async {
        match &question.ask {
            Ask::Command { argv } => {
                let name = argv.first().map(String::as_str).unwrap_or_default();
                let there = of_a_release(name) || program::find(name).is_some();
                there.then_some(()).ok_or_else(|| format!("{name} is no program on this machine"))
            }
            Ask::Prometheus { url, query, .. } if of_a_release(query) && !of_a_release(url) => {
                match prometheus::ask(http, url, "vector(1)", None, None).await {
                    (Answer::Good, _) => Ok(()),
                    (_, words) => Err(words),
                }
            }
            Ask::Http { url } | Ask::Prometheus { url, .. } => {
                let url = Url::parse(url).map_err(|e| e.to_string())?;
                http.reach(url.as_str().parse::<Uri>().map_err(|e| e.to_string())?).await
            }
        }
    };
    let as_it_is = match &question.ask {
        Ask::Command { .. } => false,
        Ask::Http { url } => !of_a_release(url),
        Ask::Prometheus { url, query, .. } => !of_a_release(url) && !of_a_release(query),
    };
    if as_it_is {
        return Found::Answered(question.ask(http).await);
    }
    match tokio::time::timeout(question.timeout, there).await {
        Ok(Ok(())) => Found::There,
        Ok(Err(why)) => Found::Missing(Safe::new(&why)),
        Err(_elapsed) => Found::Missing(Safe::new(&question.too_late())),
    }
}

/// Whoever is asked says yes or no; what stands in front of them, or is not able to say anything, says neither.
async fn get(http: &Client, url: &str) -> (Answer, String) {
    let asked = match Url::parse(url) {
        Ok(url) => http.get(url.as_str()).await,
        Err(e) => Err(format!("no URL: {e}")),
    };
    let (status, body) = match asked {
        Ok(answered) => answered,
        Err(why) => return (Answer::Unknown, why),
    };
    let answer = match status {
        200..=299 => Answer::Good,
        300..=399 | 408 | 425 | 429 | 502..=504 => Answer::Unknown,
        _ => Answer::Bad,
    };
    let said = body.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or_default();
    (answer, format!("{status} {said}").trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_become_a_pattern_that_means_them_and_nothing_else() {
        let both: [SocketAddr; 2] = ["10.0.0.1:80".parse().unwrap(), "10.0.0.2:81".parse().unwrap()];
        assert_eq!(pattern(&["[::1]:81".parse().unwrap()]), "[[]::1[]]:81", "as RE2 has it");
        let regex = regex::Regex::new(&format!("^(?:{})$", pattern(&both))).unwrap();
        assert!(both.iter().all(|at| regex.is_match(&at.to_string())));
        assert!(!regex.is_match("10.0.0.11:80") && !regex.is_match("10a0.0.1:80"));
    }

    #[test]
    fn words_in_braces_are_replaced_and_other_braces_stay() {
        let values = Values(vec![("version", "1.5.0".into()), ("candidates", "10[.]0[.]0[.]1:80".into())]);
        let fill = |text| values.fill(text, str::to_owned);
        let query = r#"rate(x{version="{version}",instance=~"{candidates}"}[1m])"#;
        assert_eq!(fill(query), r#"rate(x{version="1.5.0",instance=~"10[.]0[.]0[.]1:80"}[1m])"#);
        assert_eq!(fill("{verison} { {{version}} {"), "{verison} { {1.5.0} {");
        assert_eq!(
            values.fill("http://x/?v={version}&c={candidates}", in_url),
            "http://x/?v=1.5.0&c=10%5B.%5D0%5B.%5D0%5B.%5D1%3A80"
        );
    }
}
