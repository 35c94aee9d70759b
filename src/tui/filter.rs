//! What a list is filtered by: text, or a regular expression where the text is one; `!` in front turns it round. Small
//! letters match both cases, a capital only itself.

use regex::{Regex, RegexBuilder};

use super::model::Input;
use crate::text::Safe;

/// Largest program that an expression may become, in bytes: more is a slip of the finger, or meant to be slow.
const LARGEST: usize = 256 << 10;

/// The lists that can be filtered, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Instances.
    Fleet,
    /// Probes.
    Health,
    /// Events.
    Events,
    /// Lines of the log pane.
    Logs,
}

/// A filter of each list.
#[derive(Clone, Debug, Default)]
pub struct Filters {
    fleet: Filter,
    health: Filter,
    events: Filter,
    logs: Filter,
}

impl Filters {
    /// The filter of a list.
    #[must_use]
    pub fn of(&self, list: List) -> &Filter {
        match list {
            List::Fleet => &self.fleet,
            List::Health => &self.health,
            List::Events => &self.events,
            List::Logs => &self.logs,
        }
    }

    /// The filter of a list, to be changed.
    pub fn of_mut(&mut self, list: List) -> &mut Filter {
        match list {
            List::Fleet => &mut self.fleet,
            List::Health => &mut self.health,
            List::Events => &mut self.events,
            List::Logs => &mut self.logs,
        }
    }
}

/// What is typed, and what it matches.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    input: Input,
    negate: bool,
    test: Test,
    /// Finds in a text what the test finds; `None` where what is left out is what matters.
    finder: Option<Regex>,
    wrong: Option<Safe>,
}

#[derive(Clone, Debug, Default)]
enum Test {
    #[default]
    All,
    /// In small letters: matches both cases.
    Any(String),
    Exact(String),
    Pattern(Regex),
}

impl Filter {
    /// What is typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.input.text
    }

    /// Whether it leaves anything out, or stands there as something that could.
    #[must_use]
    pub fn active(&self) -> bool {
        !self.input.text.is_empty()
    }

    /// What is wrong with the expression; the last one that was right counts until it is.
    #[must_use]
    pub fn wrong(&self) -> Option<&Safe> {
        self.wrong.as_ref()
    }

    /// Takes another text.
    pub fn set(&mut self, text: &str) {
        self.input = Input::default();
        text.chars().for_each(|c| self.input.push(c));
        self.read();
    }

    /// One character more.
    pub fn push(&mut self, c: char) {
        self.input.push(c);
        self.read();
    }

    /// One character less.
    pub fn pop(&mut self) {
        self.input.text.pop();
        self.read();
    }

    fn read(&mut self) {
        self.wrong = None;
        let (negate, text) = match self.input.text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, self.input.text.as_str()),
        };
        let capital = text.chars().any(char::is_uppercase);
        // A dot alone makes no expression: versions and addresses are full of them.
        let test = if text.is_empty() {
            Test::All
        } else if !text.contains(['^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\']) {
            if capital { Test::Exact(text.to_owned()) } else { Test::Any(text.to_lowercase()) }
        } else {
            let pattern = RegexBuilder::new(text)
                .case_insensitive(!capital)
                .size_limit(LARGEST)
                .dfa_size_limit(LARGEST)
                .build();
            match pattern {
                Ok(pattern) => Test::Pattern(pattern),
                Err(e) => {
                    self.wrong = Some(reason(&e));
                    return;
                }
            }
        };
        self.finder = match &test {
            _ if negate => None,
            Test::All => None,
            Test::Any(_) | Test::Exact(_) => {
                RegexBuilder::new(&regex::escape(text)).case_insensitive(!capital).build().ok()
            }
            Test::Pattern(pattern) => Some(pattern.clone()),
        };
        (self.negate, self.test) = (negate, test);
    }

    /// Whether it finds something in what it leaves, which can then be marked and walked through.
    #[must_use]
    pub fn finds(&self) -> bool {
        self.finder.is_some()
    }

    /// Where in a text it finds something, in bytes.
    pub fn spans(&self, text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
        let found = self.finder.iter().flat_map(move |f| f.find_iter(text));
        found.map(|m| m.range()).filter(|r| !r.is_empty())
    }

    /// Whether something with these fields belongs into the list.
    #[must_use]
    pub fn matches<'a>(&self, fields: impl IntoIterator<Item = &'a str>) -> bool {
        let mut fields = fields.into_iter();
        let any = match &self.test {
            Test::All => return true,
            Test::Any(needle) => fields.any(|f| contains(f, needle)),
            Test::Exact(needle) => fields.any(|f| f.contains(needle.as_str())),
            Test::Pattern(pattern) => fields.any(|f| pattern.is_match(f)),
        };
        any != self.negate
    }
}

/// What is wrong with an expression, in a few words.
fn reason(e: &regex::Error) -> Safe {
    match e {
        regex::Error::CompiledTooBig(_) => "this expression is too large".into(),
        e => {
            let text = e.to_string();
            let last = text.lines().last().unwrap_or_default();
            Safe::capped(last.trim().trim_start_matches("error: "), 80)
        }
    }
}

/// Whether `field` contains `needle`, which is in lower case, whatever the case of `field`.
fn contains(field: &str, needle: &str) -> bool {
    if field.is_ascii() {
        let (field, needle) = (field.as_bytes(), needle.as_bytes());
        return field.windows(needle.len()).any(|w| w.eq_ignore_ascii_case(needle));
    }
    field.to_lowercase().contains(needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        let mut f = Filter::default();
        f.set(text);
        f
    }

    fn takes(text: &str, fields: &[&str]) -> bool {
        filter(text).matches(fields.iter().copied())
    }

    #[test]
    fn small_letters_match_both_cases_and_capitals_only_themselves() {
        assert!(takes("fail", &["web", "FAIL 503"]));
        assert!(!takes("Fail", &["FAIL 503"]));
        assert!(takes("FAIL", &["FAIL 503"]));
        assert!(takes("ärger", &["ÄRGER"]));
        assert!(takes("서비스", &["서비스-1"]));
        assert!(takes("^fail", &["FAIL 503"]) && !takes("^Fail", &["FAIL"]));
    }

    #[test]
    fn a_mark_in_front_turns_it_round_over_all_fields() {
        assert!(!takes("!ok", &["web", "ok"]));
        assert!(takes("!ok", &["web", "FAIL"]));
        assert!(takes("!", &["anything"]));
        assert!(!takes("!^w.b$", &["web", "ok"]));
    }

    #[test]
    fn a_version_is_text_and_what_has_signs_is_an_expression() {
        assert!(!takes("1.5.0", &["1x5x0"]));
        assert!(takes("1.[45].0", &["1.5.0"]));
        assert!(takes("node-(1|3)$", &["node-3"]) && !takes("node-(1|3)$", &["node-31"]));
    }

    #[test]
    fn what_it_finds_is_where_it_is_whatever_the_case_and_nothing_where_it_leaves_out() {
        let spans = |text: &str, line: &str| -> Vec<String> {
            filter(text).spans(line).map(|r| line.get(r).unwrap().to_owned()).collect()
        };
        assert_eq!(spans("err", "ERR 서비스 err Err"), ["ERR", "err", "Err"]);
        assert_eq!(spans("ERR", "ERR err"), ["ERR"]);
        assert_eq!(spans("비", "서비스"), ["비"]);
        assert_eq!(spans("5.0", "1.5.0 1x5x0"), ["5.0"]);
        assert_eq!(spans("[45]xx|x*", "4xx b"), ["4xx"], "what matches nothing marks nothing");
        assert_eq!(spans("!err", "err"), [] as [&str; 0]);
        assert!(filter("err").finds() && !filter("!err").finds() && !filter("").finds());
    }

    #[test]
    fn a_wrong_expression_says_so_and_the_last_right_one_counts() {
        let mut f = filter("web");
        for c in "(1".chars() {
            f.push(c);
        }
        assert_eq!(f.wrong().map(Safe::as_str), Some("unclosed group"));
        assert!(f.matches(["web-2"]) && !f.matches(["api"]), "still web");
        f.push(')');
        assert!(f.wrong().is_none() && f.matches(["web1"]) && !f.matches(["web-2"]));
        let mut f = filter("a{1000}{1000}");
        assert_eq!(f.wrong().map(Safe::as_str), Some("this expression is too large"));
        f.set("");
        assert!(!f.active() && f.wrong().is_none() && f.matches(["x"]));
    }
}
