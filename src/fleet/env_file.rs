//! Files of `NAME=value` lines. Their values are secrets: no error, no `Debug` and no log ever shows one.

use std::collections::BTreeMap;
use std::path::Path;

use super::problem::{Problem, Problems};

/// What an instance's environment may not set, because Pilothouse does, for processes.
pub(super) const RESERVED: [&str; 2] = ["PORT", "HOST"];

/// A name and the line it stands on; the value is kept apart so that it is not shown by accident.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) line: usize,
    value: String,
}

/// Reads a file of `NAME=value` lines: blank lines and lines that start with `#` are skipped, `export ` is allowed
/// in front, and a value may stand in `'…'` (taken as it is) or `"…"` (with `\n`, `\t`, `\"`, `\\` and `\$`).
/// An unquoted value ends before ` #`. Values are not expanded.
///
/// # Errors
/// Every malformed line, by its number and never by its content; or that the file cannot be read.
pub fn read(path: &Path) -> Result<BTreeMap<String, String>, Problems> {
    Ok(entries(path)?.into_iter().map(|e| (e.name, e.value)).collect())
}

/// The same with the lines that the names stand on.
pub(super) fn entries(path: &Path) -> Result<Vec<Entry>, Problems> {
    let unreadable = |why: &str| {
        let message = format!("cannot read the environment file: {why}");
        Problems::from(Problem::of_file(
            path,
            &message,
            "create it with NAME=value lines, or remove 'env_file'",
        ))
    };
    let bytes = super::bytes_of(path).map_err(|why| unreadable(&why))?;
    parse(&bytes, path)
}

fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Entry>, Problems> {
    let mut out: Vec<Entry> = Vec::new();
    let mut found = Vec::new();
    for (n, raw) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = n + 1;
        let mut bad = |message: &str, fix: &str| found.push(Problem::of_line(path, line, message, fix));
        let Ok(text) = std::str::from_utf8(raw) else {
            bad("the line is not UTF-8 text", "save the file as UTF-8");
            continue;
        };
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let text = text.strip_prefix("export ").map_or(text, str::trim_start);
        let Some((name, rest)) = text.split_once('=') else {
            bad("the line has no '='", "write NAME=value, or start the line with #");
            continue;
        };
        // What stands before '=' may be part of a secret that was broken over lines: it is not shown.
        if !is_name(name) {
            bad(
                "what stands before '=' is not a name",
                "write a name out of A-Z, a-z, 0-9 and _, not starting with a digit, and no space around '='",
            );
            continue;
        }
        let value = match value(rest.trim()) {
            Ok(v) => v,
            Err((message, fix)) => {
                bad(&format!("the value of '{name}' {message}"), fix);
                continue;
            }
        };
        if let Some(first) = out.iter().find(|e| e.name == name) {
            bad(
                &format!("'{name}' is set a second time (first on line {})", first.line),
                "remove one of the two lines",
            );
            continue;
        }
        out.push(Entry { name: name.to_owned(), line, value });
    }
    match Problems::judge(path, found) {
        Ok(_) => Ok(out),
        Err(problems) => Err(problems),
    }
}

/// Whether a program can be given an environment variable of this name.
pub(super) fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic())
}

fn value(written: &str) -> Result<String, (&'static str, &'static str)> {
    let value = match written.chars().next() {
        Some('\'') => {
            let rest = written.strip_prefix('\'').unwrap_or_default();
            let (inside, after) = rest.split_once('\'').ok_or(("has no closing quote", "end it with '"))?;
            nothing_after(after)?;
            inside.to_owned()
        }
        Some('"') => double_quoted(written)?,
        _ => {
            let comment = written.find(" #").or_else(|| written.find("\t#")).unwrap_or(written.len());
            let value = if written.starts_with('#') { "" } else { written.get(..comment).unwrap_or(written) };
            value.trim_end().to_owned()
        }
    };
    if value.contains('\0') {
        return Err(("holds a NUL character", "remove it: no program can be given one"));
    }
    Ok(value)
}

fn double_quoted(written: &str) -> Result<String, (&'static str, &'static str)> {
    let mut out = String::new();
    let mut chars = written.chars();
    chars.next();
    loop {
        match chars.next() {
            None => return Err(("has no closing quote", "end it with \"")),
            Some('"') => break,
            Some('\\') => out.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\' | '$' | '`')) => c,
                _ => {
                    return Err((
                        "has an unknown escape",
                        "use \\n, \\t, \\\", \\\\ or \\$, or put the value in '…'",
                    ));
                }
            }),
            Some(c) => out.push(c),
        }
    }
    nothing_after(chars.as_str())?;
    Ok(out)
}

fn nothing_after(rest: &str) -> Result<(), (&'static str, &'static str)> {
    let rest = rest.trim();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(())
    } else {
        Err(("goes on after its closing quote", "put the whole value into one pair of quotes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> Result<BTreeMap<String, String>, String> {
        parse(text.as_bytes(), Path::new("web.env"))
            .map(|v| v.into_iter().map(|e| (e.name, e.value)).collect())
            .map_err(|p| p.to_string())
    }

    #[test]
    fn names_and_values_are_read_as_written() {
        let read = map("\u{feff}# a comment\r\n\r\nA=1\nexport B=two words # comment\nC='it is # $HERE'\nD=\"x\\n\\\"y\\\"\" # z\nE=\nF=a#b\nG = 1")
            .unwrap_err();
        assert!(read.starts_with("web.env:9: what stands before '=' is not a name"), "{read}");
        let read = map("A=1\nexport B=two words # comment\r\nC='it is # $HERE'\nD=\"x\\n\\\"y\\\"\" # z\nE=\nF=a#b\nG=# none\nH=a=b").unwrap();
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "it is # $HERE"),
            ("D", "x\n\"y\""),
            ("E", ""),
            ("F", "a#b"),
            ("G", ""),
            ("H", "a=b"),
        ];
        assert_eq!(read, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn no_error_shows_a_value() {
        let secret = "hunter2";
        for line in [
            "TOKEN hunter2",
            "hunter2",
            "T=\"hunter2",
            "T='hunter2",
            "T=\"hunter2\" hunter2",
            "T=\"hunter2\\q\"",
            "1T=hunter2",
            "T=hunter2\nT=hunter2",
            "hunter2 x=1",
        ] {
            let shown = map(line).unwrap_err();
            assert!(!shown.contains(secret), "{shown}");
            assert!(shown.starts_with("web.env:"), "{shown}");
            let debug = format!("{:?}", parse(line.as_bytes(), Path::new("web.env")).err());
            assert!(!debug.contains(secret), "{debug}");
        }
    }

    #[test]
    fn every_malformed_line_is_named() {
        let shown = map("A\nB=1\n2C=1\nB=2\nD=\"").unwrap_err();
        let lines: Vec<_> = shown
            .lines()
            .filter(|l| l.starts_with("web.env:"))
            .map(|l| l.split(':').nth(1).unwrap())
            .collect();
        assert_eq!(lines, ["1", "3", "4", "5"]);
    }

    #[test]
    fn a_directory_and_a_missing_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap_err().to_string().contains("not a regular file"));
        assert!(read(&dir.path().join("none")).unwrap_err().to_string().contains("cannot read"));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse(&bytes, Path::new("x"));
        }

        #[test]
        fn any_text_in_single_quotes_is_kept(text in "[^'\0\r\n]*") {
            proptest::prop_assert_eq!(map(&format!("A='{text}'")).unwrap().remove("A"), Some(text));
        }
    }
}
