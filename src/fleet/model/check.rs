//! Checks of a release: questions that are put to something else while a candidate takes requests.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fleet::names::{CheckName, Millis};

/// A question that is asked again and again while a candidate takes requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What people call it.
    pub name: CheckName,
    /// What is asked, and whom.
    pub ask: Ask,
    /// From the end of one question to the next.
    pub interval: Millis,
    /// Longest wait for an answer; after it nothing is known.
    pub timeout: Millis,
    /// After so many bad answers in a row the candidate is taken back; at least 1. Not knowing counts neither way.
    pub failures: u32,
    /// Nothing is done about what it says.
    pub dry_run: bool,
}

/// What is asked. `{version}` and the other words of [`PLACEHOLDERS`] are replaced in every text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Ask {
    /// A value that a Prometheus (or what speaks its HTTP API) computes.
    Prometheus {
        /// Where its API is, without `/api/v1/query`.
        url: String,
        /// PromQL that comes to one number.
        query: String,
        /// Good is nothing below this.
        min: Option<Limit>,
        /// Good is nothing above this.
        max: Option<Limit>,
    },
    /// A URL: 200 to 299 is good.
    Http {
        /// Of this URL, with GET.
        url: String,
    },
    /// A program: exit code 0 is good, 1 is bad.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
}

/// What is replaced in the texts of a check, in braces.
pub const PLACEHOLDERS: [&str; 9] = [
    "fleet",
    "service",
    "version",
    "stable_version",
    "revision",
    "stable_revision",
    "rollout",
    "candidates",
    "stables",
];

/// A bound of a check: any number but infinity.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Limit(f64);

// It is never NaN.
impl Eq for Limit {}

impl Limit {
    /// `None` for what is no number, and for infinity.
    #[must_use]
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// The number.
    #[must_use]
    pub fn value(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
