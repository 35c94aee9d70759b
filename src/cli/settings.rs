//! An operator's own settings of the cockpit, from `cockpit.toml`. A file that is wrong is not used at all: half of
//! somebody's keys would be worse than none of them. Everything that is wrong is said at once, with its place.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::out::complain;
use crate::fleet::problem::{Source, Span};
use crate::fleet::suggest::nearest;
use crate::fleet::{Problem, Problems};
use crate::text::Safe;
use crate::tui::custom::{self, Wish};
use crate::tui::{Graph, Palette, Settings};

/// A larger file is no list of settings.
const MOST_BYTES: u64 = 64 << 10;

/// The keys of the file.
const TOP: [&str; 7] = ["theme", "ascii", "graph", "mouse", "reduced_motion", "synchronised", "keys"];

/// The operator's settings. What is wrong with the file is printed, for the screen that comes back when the cockpit is
/// left, and stands in the settings in one line.
pub(super) fn read() -> Settings {
    let Some(file) = place(|name| std::env::var(name).ok().filter(|v| !v.is_empty())) else {
        return Settings::default();
    };
    load(&file).unwrap_or_else(|problems| {
        complain(&format!("{problems}\nThe cockpit's defaults are used.\n"));
        Settings { trouble: Some(in_a_line(&problems)), ..Settings::default() }
    })
}

/// Where the file is, if it is anywhere.
fn place(env: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let absolute = |dir: String| Some(PathBuf::from(dir)).filter(|d| d.is_absolute());
    let own = env("XDG_CONFIG_HOME").and_then(absolute);
    let config = own.or_else(|| Some(env("HOME").and_then(absolute)?.join(".config")))?;
    Some(config.join("pilothouse/cockpit.toml"))
}

/// The first problem, and how many more there are.
fn in_a_line(problems: &Problems) -> Safe {
    let Some(p) = problems.list().first() else { return Safe::default() };
    let at = [p.line, p.column].into_iter().filter(|n| *n > 0).map(|n| format!(":{n}")).collect::<String>();
    let fix = if p.fix.is_empty() { String::new() } else { format!("; {}", p.fix) };
    let more = match problems.list().len() - 1 {
        0 => String::new(),
        n => format!(" And {n} more: they are printed on leaving."),
    };
    Safe::new(&format!("DEFAULT KEYS AND COLOURS: {}{at}: {}{fix}.{more}", p.file, p.message))
}

fn load(file: &Path) -> Result<Settings, Problems> {
    let wrong = |why: String| Problem::of_file(file, &format!("cannot read the settings: {why}"), "");
    let meta = match std::fs::metadata(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Settings::default()),
        Err(e) => return Err(wrong(e.to_string()).into()),
        Ok(meta) => meta,
    };
    // A FIFO or a device would block or never end.
    if !meta.is_file() || meta.len() > MOST_BYTES {
        return Err(wrong("it is no file of at most 64 KiB".to_owned()).into());
    }
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|f| f.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(|e| wrong(e.to_string()))?;
    parse(&text, file)
}

/// What is wrong so far.
struct Ctx<'a> {
    source: Source<'a>,
    found: Vec<Problem>,
}

impl Ctx<'_> {
    fn error(&mut self, span: &Span, message: &str, fix: &str) {
        self.found.push(self.source.problem(span, message, fix));
    }

    fn unknown<'k>(&mut self, span: &Span, what: &str, known: impl Iterator<Item = &'k str> + Clone) {
        let near = span_text(what).and_then(|written| nearest(written, known.clone()));
        let fix = match near {
            Some(near) => format!("write '{near}' instead"),
            None => format!("known are {}", list(known)),
        };
        self.error(span, what, &fix);
    }

    fn flag(&mut self, key: &str, v: &Spanned<DeValue<'_>>) -> Option<bool> {
        if let DeValue::Boolean(b) = v.get_ref() {
            return Some(*b);
        }
        self.error(&v.span(), &format!("'{key}' is neither true nor false"), &format!("write {key} = true"));
        None
    }

    /// A text that is one of `known`.
    fn one_of<'k>(
        &mut self,
        key: &str,
        v: &Spanned<DeValue<'_>>,
        known: impl Iterator<Item = &'k str> + Clone,
    ) -> Option<&'k str> {
        let written = v.get_ref().as_str();
        let found = known.clone().find(|k| Some(*k) == written);
        if found.is_none() {
            let fix = match written.and_then(|w| nearest(w, known.clone())) {
                Some(near) => format!("write {key} = \"{near}\""),
                None => format!("write one of {}", list(known)),
            };
            self.error(&v.span(), &format!("there is no such {key}"), &fix);
        }
        found
    }
}

/// `'a', 'b', 'c'`
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ")
}

/// What stands between the first pair of quotes.
fn span_text(message: &str) -> Option<&str> {
    message.split('\'').nth(1)
}

fn parse(text: &str, file: &Path) -> Result<Settings, Problems> {
    let mut ctx = Ctx { source: Source::new(file, text), found: Vec::new() };
    let (table, errors) = DeTable::parse_recoverable(text);
    for e in &errors {
        ctx.error(&e.span().unwrap_or(0..0), e.message(), "write NAME = VALUE, texts in double quotes");
    }
    let mut settings = Settings::default();
    // What follows from broken lines is not judged.
    if errors.is_empty() {
        walk(&mut ctx, table.get_ref(), &mut settings);
    }
    Problems::judge(file, ctx.found)?;
    Ok(settings)
}

fn walk(ctx: &mut Ctx<'_>, top: &DeTable<'_>, settings: &mut Settings) {
    for (key, v) in top {
        let written = key.get_ref().as_ref();
        match written {
            "theme" => {
                let names = std::iter::once("auto").chain(Palette::ALL.into_iter().map(Palette::name));
                settings.colours = ctx.one_of(written, v, names).and_then(Palette::named);
            }
            "graph" => {
                let name = ctx.one_of(written, v, Graph::ALL.into_iter().map(Graph::name));
                settings.graph = Graph::ALL.into_iter().find(|g| Some(g.name()) == name);
            }
            "ascii" => settings.ascii = ctx.flag(written, v).unwrap_or_default(),
            "synchronised" => settings.synchronised = ctx.flag(written, v),
            "mouse" => settings.mouse = ctx.flag(written, v).unwrap_or_default(),
            "reduced_motion" => settings.reduced_motion = ctx.flag(written, v),
            "keys" => match v.get_ref() {
                DeValue::Table(keys) => read_keys(ctx, keys, settings),
                _ => ctx.error(&v.span(), "'keys' is no table", "write [keys], and below it abort = \"x\""),
            },
            _ if custom::knows(written) => {
                let fix = format!("write it below a line with [keys]: {written} = \"x\"");
                ctx.error(&key.span(), &format!("'{written}' is a key's command"), &fix);
            }
            _ => ctx.unknown(&key.span(), &format!("'{written}' is no setting"), TOP.into_iter()),
        }
    }
}

fn read_keys(ctx: &mut Ctx<'_>, table: &DeTable<'_>, settings: &mut Settings) {
    let mut wishes: Vec<Wish<'_>> = Vec::new();
    // Of each wish, where its command and each of its keys stand.
    let mut places: Vec<(Span, Vec<Span>)> = Vec::new();
    for (name, v) in table {
        let written = name.get_ref().as_ref();
        if !custom::knows(written) {
            ctx.unknown(
                &name.span(),
                &format!("'{written}' is no command"),
                custom::names().collect::<Vec<_>>().into_iter(),
            );
            continue;
        }
        let items: Vec<&Spanned<DeValue<'_>>> = match v.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![v],
        };
        let mut keys = Vec::new();
        let mut spans = Vec::new();
        for item in items {
            match item.get_ref().as_str() {
                Some(key) => {
                    keys.push(key);
                    spans.push(item.span());
                }
                None => {
                    let fix = format!("write {written} = \"x\" or {written} = [\"x\", \"F5\"]");
                    ctx.error(&item.span(), "a key is a text", &fix);
                }
            }
        }
        if keys.is_empty() && !matches!(v.get_ref(), DeValue::Array(items) if items.is_empty()) {
            continue;
        }
        wishes.push(Wish { name: written, keys });
        places.push((name.span(), spans));
    }
    match custom::table(&wishes) {
        Ok(keys) => settings.keys = keys,
        Err(refused) => {
            for r in refused {
                let Some((command, keys)) = places.get(r.wish) else { continue };
                let span = r.key.and_then(|k| keys.get(k)).unwrap_or(command);
                ctx.error(span, &r.message, &r.fix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::custom::names;

    fn read(text: &str) -> Result<Settings, String> {
        parse(text, Path::new("cockpit.toml")).map_err(|p| p.to_string())
    }

    fn caption(s: &Settings, name: &str) -> &'static str {
        s.keys.lines().iter().find(|b| b.names.contains(&name)).unwrap().caption
    }

    #[test]
    fn the_example_of_the_documentation_is_right() {
        let doc = include_str!("../../docs/cockpit.md");
        let example = doc.split("```toml\n").nth(1).and_then(|d| d.split("```").next()).unwrap();
        let s = read(example).unwrap();
        assert_eq!((s.colours, s.graph), (Some(Palette::Light), Some(Graph::Braille)));
        assert_eq!((s.ascii, s.reduced_motion), (false, Some(true)));
        assert_eq!((caption(&s, "abort"), caption(&s, "promote")), ("x", "p, F5"));
    }

    #[test]
    fn nothing_is_the_default_and_so_is_what_is_called_auto() {
        for text in ["", "# nothing\n", "theme = \"auto\"\n[keys]\n"] {
            let s = read(text).unwrap();
            assert_eq!((s.colours, s.graph, s.ascii, s.reduced_motion), (None, None, false, None), "{text}");
            assert_eq!(caption(&s, "abort"), "a");
        }
        assert!(load(Path::new("/nonexistent/pilothouse/cockpit.toml")).unwrap().trouble.is_none());
    }

    #[test]
    fn every_mistake_has_its_place_and_what_to_write_instead() {
        for (text, said) in [
            (
                "thme = \"dark\"",
                "cockpit.toml:1:1: 'thme' is no setting\n  1 | thme = \"dark\"\n    | ^^^^\n  = write 'theme' instead",
            ),
            (
                "theme = \"drak\"",
                "cockpit.toml:1:9: there is no such theme\n  1 | theme = \"drak\"\n    |         ^^^^^^\n  = write theme = \"dark\"",
            ),
            ("theme = 16", "write one of 'auto', 'dark'"),
            ("ascii = \"yes\"", "'ascii' is neither true nor false"),
            ("graph = \"blocks\"", "write graph = \"block\""),
            ("keys = 1", "'keys' is no table"),
            ("abort = \"x\"", "write it below a line with [keys]: abort = \"x\""),
            ("[keys]\nabrot = \"x\"", "cockpit.toml:2:1: 'abrot' is no command"),
            ("[keys]\nabrot = \"x\"", "write 'abort' instead"),
            ("[keys]\nabort = 7", "write abort = \"x\" or abort = [\"x\", \"F5\"]"),
            ("[keys]\nabort = []", "cockpit.toml:2:1: abort must have a key"),
            ("[keys]\nabort = \"s\"", "cockpit.toml:2:9: s is taken: scope"),
            ("[keys]\nzoom = [\"w\", \"Ctl-W\"]", "cockpit.toml:2:14: 'Ctl-W' is no key"),
            ("[keys\nabort = \"x\"", "cockpit.toml:1:"),
        ] {
            let got = read(text).expect_err(text);
            assert!(got.contains(said), "{text}:\n{got}\nlacks\n{said}");
        }
        // All of them at once.
        let two = parse("ascii = 1\n[keys]\nabort = \"y\"\n", Path::new("cockpit.toml")).unwrap_err();
        assert_eq!(two.list().len(), 2);
        let line = in_a_line(&two);
        assert!(
            line.as_str().starts_with("DEFAULT KEYS AND COLOURS: cockpit.toml:1:9: 'ascii' is neither")
                && line.as_str().contains("write ascii = true. And 1 more"),
            "{line}"
        );
    }

    #[test]
    fn every_name_that_can_have_a_key_is_known_by_it() {
        names().for_each(|n| assert!(custom::knows(n) || n.contains("--"), "{n}"));
    }

    #[test]
    fn the_file_is_where_settings_are() {
        let at = |vars: &[(&str, &str)]| {
            let got = place(|n| vars.iter().find(|(k, _)| *k == n).map(|(_, v)| (*v).to_owned()));
            got.map(|p| p.display().to_string())
        };
        assert_eq!(at(&[("HOME", "/h")]).unwrap(), "/h/.config/pilothouse/cockpit.toml");
        let own = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")];
        assert_eq!(at(&own).unwrap(), "/c/pilothouse/cockpit.toml");
        assert_eq!(
            at(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "c")]),
            at(&[("HOME", "/h")]),
            "relative: not valid"
        );
        assert_eq!(at(&[]), None);
    }
}
