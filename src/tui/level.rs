//! How serious a log line is, by the shapes in which applications say so. Looked for only at the beginning of a line, and
//! only in lines that are in sight.

use super::theme::Tone;

/// Bytes of a line that are looked at.
const LOOKED_AT: usize = 200;
/// Words of those that may be the level by themselves: after a date, a time, a thread and a name.
const WORDS: usize = 6;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever wrote the application.
    Debug,
    /// Good to know.
    Info,
    /// Somebody should look.
    Warn,
    /// Something went wrong.
    Error,
}

impl Level {
    /// What it looks like.
    #[must_use]
    pub fn tone(self) -> Tone {
        match self {
            Self::Debug => Tone::Dim,
            Self::Info => Tone::Plain,
            Self::Warn => Tone::Warn,
            Self::Error => Tone::Bad,
        }
    }

    fn named(word: &str) -> Option<Self> {
        const NAMES: [(&str, Level); 19] = [
            ("error", Level::Error),
            ("err", Level::Error),
            ("erro", Level::Error),
            ("fatal", Level::Error),
            ("critical", Level::Error),
            ("crit", Level::Error),
            ("alert", Level::Error),
            ("emerg", Level::Error),
            ("panic", Level::Error),
            ("severe", Level::Error),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("info", Level::Info),
            ("notice", Level::Info),
            ("debug", Level::Debug),
            ("debu", Level::Debug),
            ("trace", Level::Debug),
            ("verbose", Level::Debug),
            ("fine", Level::Debug),
        ];
        NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
    }

    /// The numbers of Bunyan and Pino.
    fn numbered(n: u32) -> Option<Self> {
        match n {
            10..30 => Some(Self::Debug),
            30..40 => Some(Self::Info),
            40..50 => Some(Self::Warn),
            50..=60 => Some(Self::Error),
            _ => None,
        }
    }
}

/// How serious a line says it is; `None` when it does not.
#[must_use]
pub fn level(line: &str) -> Option<Level> {
    let mut end = line.len().min(LOOKED_AT);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    let line = line.get(..end)?.trim_start();
    syslog(line).or_else(|| klog(line)).or_else(|| field(line)).or_else(|| word(line))
}

/// `<3>text`: the priority of syslog and the kernel, the facility times eight plus the severity.
fn syslog(line: &str) -> Option<Level> {
    let (number, _) = line.strip_prefix('<')?.split_once('>')?;
    let number: u8 = number.parse().ok().filter(|n| *n < 192)?;
    Some(match number % 8 {
        0..=3 => Level::Error,
        4 => Level::Warn,
        5 | 6 => Level::Info,
        _ => Level::Debug,
    })
}

/// `E0521 12:00:00.000000 1 file.go:1] text`: the level's letter, the month and the day.
fn klog(line: &str) -> Option<Level> {
    let head = line.as_bytes().get(..6)?;
    let (letter, rest) = head.split_first()?;
    let (day, space) = rest.split_at_checked(4)?;
    if !day.iter().all(u8::is_ascii_digit) || space != b" " {
        return None;
    }
    match letter {
        b'E' | b'F' => Some(Level::Error),
        b'W' => Some(Level::Warn),
        b'I' => Some(Level::Info),
        _ => None,
    }
}

/// `level=error`, `"level":"error"`, `"severity": "ERROR"`, `"level":50`.
fn field(line: &str) -> Option<Level> {
    const KEYS: [&str; 4] = ["level", "lvl", "severity", "loglevel"];
    for (at, sign) in line.match_indices(['=', ':']) {
        let before = line.get(..at)?.trim_end();
        let quoted = before.ends_with('"');
        // In JSON the key is quoted; elsewhere a colon ends a sentence more often than a key.
        if sign == ":" && !quoted {
            continue;
        }
        let key = before.trim_end_matches('"');
        let key = key.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default();
        if !KEYS.iter().any(|k| k.eq_ignore_ascii_case(key)) {
            continue;
        }
        let value = line.get(at + 1..)?.trim_start().trim_start_matches('"');
        let value = value.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let found = Level::named(value).or_else(|| Level::numbered(value.parse().ok()?));
        if found.is_some() {
            return found;
        }
    }
    None
}

/// `ERROR text`, `[error] text`, `error: text`, `ERROR:root:text`: a word of its own, in capitals, in brackets, or with a
/// colon at the very beginning. Small letters anywhere else are a part of what is said.
fn word(line: &str) -> Option<Level> {
    for (n, word) in line.split_ascii_whitespace().take(WORDS).enumerate() {
        let word = without_colours(word);
        let open = word.starts_with(['[', '<', '(', '|']);
        let inner = word.trim_start_matches(['[', '<', '(', '|', '*']);
        let bare = inner.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let rest = inner.strip_prefix(bare).unwrap_or_default();
        // A part of a name (`ERROR_CODE`, `INFO.md`) or of a path is no level.
        let ends = rest.is_empty() || rest.starts_with([']', '>', ')', ':', '|', ',', '*', '·']);
        if !ends {
            continue;
        }
        let capitals = bare.len() > 2 && bare.bytes().all(|b| b.is_ascii_uppercase());
        let in_brackets = open && rest.starts_with([']', '>', ')', '|', ':']);
        let first = n == 0 && rest.starts_with(':');
        if (capitals || in_brackets || first)
            && let Some(level) = Level::named(bare)
        {
            return Some(level);
        }
    }
    None
}

/// What colours left in front of a word when they were taken out: `·[31m`.
fn without_colours(word: &str) -> &str {
    let mut word = word;
    while let Some((codes, rest)) = word.strip_prefix("·[").and_then(|w| w.split_once('m')) {
        if !codes.bytes().all(|b| b.is_ascii_digit() || b == b';') {
            break;
        }
        word = rest;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_shapes_are_recognised() {
        use Level::{Debug, Error, Info, Warn};
        for (line, want) in [
            ("ERROR could not connect", Error),
            ("2026-11-22T06:00:00.123Z  WARN web::cart: slow", Warn),
            ("2026/11/22 06:00:00 [error] 29#29: *1 open() failed", Error),
            ("[notice] 1#1: start worker processes", Info),
            ("[WARNING]  (1) : Server web/a is DOWN", Warn),
            ("12:00:00.000 [main] DEBUG c.f.Cart - empty", Debug),
            ("12:00:00,000 INFO  [org.hibernate] (main) ready", Info),
            ("ERROR:root:it broke", Error),
            ("error: cannot find the file", Error),
            ("panic: runtime error: index out of range", Error),
            ("2026-11-22 06:00:00.000 UTC [41] ERROR:  relation \"x\" does not exist", Error),
            ("time=\"2026-11-22T06:00:00Z\" level=warning msg=\"slow\"", Warn),
            ("ts=1 lvl=eror level=ERROR msg=x", Error),
            (r#"{"level":"error","msg":"x"}"#, Error),
            (r#"{"time":"2026-11-22T06:00:00Z","severity": "DEBUG"}"#, Debug),
            (r#"{"level":50,"time":1,"msg":"x"}"#, Error),
            (r#"{"level":30,"msg":"ok"}"#, Info),
            ("E0521 12:00:00.000000       1 server.go:12] lost", Error),
            ("I1122 06:00:00.000000       1 main.go:3] up", Info),
            ("<3>disk is full", Error),
            ("<12>slow", Warn),
            ("<191>detail", Debug),
            ("·[2m12:00:00·[0m ·[1;31mERROR·[0m colours were taken out", Error),
        ] {
            assert_eq!(level(line), Some(want), "{line}");
        }
    }

    #[test]
    fn what_only_speaks_of_errors_is_no_error() {
        for line in [
            "",
            "GET /cart 200 5ms",
            "12 GET /error 200 3ms",
            "no errors so far",
            "the error was put right",
            "Error handling is on",
            "INFO.md was read",
            "ERROR_CODE is 0",
            "a word of warning: do not",
            "level crossing: 3",
            "<b>bold</b>",
            "<999>x",
            "E52 12:00",
            "서비스 준비 완료",
            "one two three four five six ERROR",
        ] {
            assert_eq!(level(line), None, "{line}");
        }
    }

    #[test]
    fn only_the_beginning_is_looked_at_whatever_stands_where_it_is_cut() {
        let long = |n: usize| format!("{}{} level=error", "x ".repeat(n), "서".repeat(70));
        assert_eq!(level(&long(0)), None);
        assert_eq!(level(&format!("{}level=error", "x ".repeat(50))), Some(Level::Error));
        for n in 0..4 {
            assert_eq!(level(&format!("{}{}", "x".repeat(n), "서".repeat(400))), None);
        }
    }
}
