//! Walks the parsed file by hand: one table, its keys, and values of the right type.
//!
//! Every getter answers `None` both for a missing key and for a value that was refused (and reported); callers go
//! on with a default, because nothing is built from a file with an error.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ctx::{At, Ctx};
use super::keys::{self, Keys};
use super::names::{Invalid, Millis};
use super::problem::Span;
use super::suggest::nearest;
use super::units;

/// One table of the file.
pub(super) struct Section<'t> {
    /// As it is written in the file: `[services.web]`; empty for the top of the file.
    pub(super) title: String,
    /// Where its header stands.
    pub(super) span: Span,
    table: &'t DeTable<'t>,
}

impl<'t> Section<'t> {
    /// The top of the file.
    pub(super) fn top(table: &'t DeTable<'t>) -> Self {
        Self { title: String::new(), span: 0..0, table }
    }

    /// ` in [services.web]`, or ` at the top of the file`.
    pub(super) fn place(&self) -> String {
        if self.title.is_empty() { " at the top of the file".into() } else { format!(" in {}", self.title) }
    }

    /// The title of a table inside this one.
    fn child_title(&self, key: &str) -> String {
        match self.title.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
            Some(own) => format!("[{own}.{key}]"),
            None => format!("[{key}]"),
        }
    }

    /// Reports every key that `known` does not have.
    pub(super) fn check_keys(&self, ctx: &mut Ctx<'_>, known: &Keys) {
        self.keys_of(ctx, known, Ctx::error);
    }

    /// As [`Section::check_keys`], where a value may be a secret.
    pub(super) fn check_keys_unseen(&self, ctx: &mut Ctx<'_>, known: &Keys) {
        self.keys_of(ctx, known, Ctx::error_unseen);
    }

    fn keys_of<'c>(&self, ctx: &mut Ctx<'c>, known: &Keys, report: fn(&mut Ctx<'c>, &Span, &str, &str)) {
        for (key, _) in self.table {
            let (written, span) = (key.get_ref().as_ref(), key.span());
            if known.has(written) {
                continue;
            }
            let fix = if let Some(near) = nearest(written, known.names()) {
                // Nobody shall lose a guard by following the advice.
                if near.strip_prefix("ir") == Some(written) {
                    format!("write '{near}', which says the opposite")
                } else {
                    format!("write '{near}' instead")
                }
            } else if let Some(home) = keys::home_of(written) {
                format!("'{written}' belongs in {home}")
            } else {
                format!("the keys known here are {}", list(known.names()))
            };
            report(ctx, &span, &format!("unknown key '{written}'{}", self.place()), &fix);
        }
    }

    fn entry(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.table.get(key)
    }

    /// Where `key` stands, when it is there.
    pub(super) fn key_span(&self, key: &str) -> Option<Span> {
        self.table.get_key_value(key).map(|(k, _)| k.span())
    }

    /// Whether `key` is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the value of `key` stands; the header when it is not there.
    pub(super) fn value_span(&self, key: &str) -> Span {
        self.entry(key).map_or(self.span.clone(), Spanned::span)
    }

    /// A small whole number, where a text is wanted and the number says what was meant. Reports nothing.
    pub(super) fn number(&self, key: &str) -> Option<u16> {
        self.entry(key)?.get_ref().as_integer()?.as_str().parse().ok()
    }

    /// Whether `key` is there and holds a text.
    pub(super) fn is_text(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|v| v.get_ref().is_str())
    }

    /// Whether `key` is there and holds a list without items.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.entry(key).and_then(|v| v.get_ref().as_array()).is_some_and(|a| a.is_empty())
    }

    /// The names of the tables in the table `key`, also of what is no table.
    pub(super) fn names_in(&self, key: &str) -> Vec<&'t str> {
        match self.entry(key).map(Spanned::get_ref) {
            Some(DeValue::Table(t)) => t.keys().map(|k| k.get_ref().as_ref()).collect(),
            _ => Vec::new(),
        }
    }

    /// Reports that a required key is missing, unless it is there with a typing mistake, which is reported elsewhere.
    pub(super) fn missing(&self, ctx: &mut Ctx<'_>, key: &str, example: &str) {
        let mistyped = self.table.keys().any(|k| nearest(k.get_ref(), [key]).is_some());
        if mistyped || !ctx.syntax_is_sound() {
            return;
        }
        let message = format!("'{key}' is missing{}", self.place());
        let fix = format!("add {example}");
        if self.title.is_empty() {
            ctx.error_unseen(&self.span, &message, &fix);
        } else {
            ctx.error(&self.span, &message, &fix);
        }
    }

    /// Reports each of `keys` that is there, because of `why`.
    pub(super) fn refuse(&self, ctx: &mut Ctx<'_>, keys: &[&str], why: &str, fix: &str) {
        for key in keys {
            if let Some(span) = self.key_span(key) {
                ctx.error(&span, &format!("'{key}'{} {why}", self.place()), fix);
            }
        }
    }

    /// A text.
    pub(super) fn text(&self, ctx: &mut Ctx<'_>, key: &str) -> Option<At<&'t str>> {
        text_of(ctx, self.entry(key)?, &format!("'{key}'{}", self.place()), key)
    }

    /// A text that a type of [`super::names`] takes.
    pub(super) fn parsed<T: std::str::FromStr<Err = Invalid>>(
        &self,
        ctx: &mut Ctx<'_>,
        key: &str,
    ) -> Option<At<T>> {
        let text = self.text(ctx, key)?;
        match text.value.parse() {
            Ok(v) => Some(text.with(v)),
            Err(e) => {
                let better = [rename(text.value, &['.', '_']), rename(text.value, &[])];
                let better = better.into_iter().flatten().find(|b| b.parse::<T>().is_ok());
                let fix =
                    better.map_or("write one like web-1".to_owned(), |b| format!("write {key} = \"{b}\""));
                ctx.error(&text.span, &format!("'{}' cannot be the {key}: {e}", text.value), &fix);
                None
            }
        }
    }

    /// True or false.
    pub(super) fn flag(&self, ctx: &mut Ctx<'_>, key: &str) -> Option<At<bool>> {
        let v = self.entry(key)?;
        if let DeValue::Boolean(b) = v.get_ref() {
            return Some(At { value: *b, span: v.span() });
        }
        let example = match v.get_ref().as_str() {
            Some("true" | "yes" | "on") => "true",
            _ => "false",
        };
        wrong_type(
            ctx,
            v,
            &format!("'{key}'{}", self.place()),
            "true or false",
            &format!("write {key} = {example}"),
        );
        None
    }

    /// A whole number from `least` to `most`.
    pub(super) fn whole(&self, ctx: &mut Ctx<'_>, key: &str, least: u32, most: u32) -> Option<At<u32>> {
        let v = self.entry(key)?;
        let what = format!("'{key}'{}", self.place());
        let DeValue::Integer(n) = v.get_ref() else {
            let fix = match v.get_ref().as_str().and_then(|s| s.trim().parse::<u32>().ok()) {
                Some(n) => format!("write {key} = {n}"),
                None => format!("write a whole number, for example {key} = {}", least.max(1)),
            };
            wrong_type(ctx, v, &what, "a whole number", &fix);
            return None;
        };
        let value = i128::from_str_radix(n.as_str(), n.radix()).ok().and_then(|n| u32::try_from(n).ok());
        match value.filter(|n| (least..=most).contains(n)) {
            Some(value) => Some(At { value, span: v.span() }),
            None => {
                ctx.error(
                    &v.span(),
                    &format!("{what} is out of range"),
                    &format!("write a number from {least} to {most}"),
                );
                None
            }
        }
    }

    /// A duration, at least `least`.
    pub(super) fn duration(&self, ctx: &mut Ctx<'_>, key: &str, least: Millis) -> Option<At<Millis>> {
        let v = self.entry(key)?;
        if let DeValue::Integer(n) = v.get_ref() {
            let fix = match units::duration(&format!("{}s", n.as_str())) {
                Ok(_) => format!("write {key} = \"{}s\" (or with ms, m, h, d)", n.as_str()),
                Err((_, fix)) => fix,
            };
            ctx.error(&v.span(), &format!("'{key}'{} has no unit", self.place()), &fix);
            return None;
        }
        let text = text_of(ctx, v, &format!("'{key}'{}", self.place()), key)?;
        match units::duration(text.value) {
            Ok(d) if d < least => {
                let message = format!("'{key}'{} is shorter than {least}", self.place());
                ctx.error(&text.span, &message, &format!("write at least \"{least}\""));
                None
            }
            Ok(d) => Some(text.with(d)),
            Err((message, fix)) => {
                ctx.error(&text.span, &message, &fix);
                None
            }
        }
    }

    /// A path; relative ones start from the file's directory.
    pub(super) fn path(&self, ctx: &mut Ctx<'_>, key: &str) -> Option<At<PathBuf>> {
        let text = self.filled(ctx, key)?;
        Some(text.with(ctx.resolve(text.value)))
    }

    /// A text that is not empty.
    pub(super) fn filled(&self, ctx: &mut Ctx<'_>, key: &str) -> Option<At<&'t str>> {
        let text = self.text(ctx, key)?;
        if text.value.trim().is_empty() || text.value.contains('\0') {
            ctx.error(
                &text.span,
                &format!("'{key}'{} is empty", self.place()),
                "write a value, or remove the line",
            );
            return None;
        }
        Some(text)
    }

    /// A list of texts, and where the list stands. Items of another type are reported and left out.
    pub(super) fn texts(&self, ctx: &mut Ctx<'_>, key: &str) -> Option<At<Vec<At<&'t str>>>> {
        let v = self.entry(key)?;
        let what = format!("'{key}'{}", self.place());
        let DeValue::Array(items) = v.get_ref() else {
            let fix = match v.get_ref().as_str() {
                Some(s) if !s.contains(['"', '\'', '\\', '\n']) => {
                    let words: Vec<_> = s.split_whitespace().map(|w| format!("\"{w}\"")).collect();
                    format!("write {key} = [{}]", words.join(", "))
                }
                _ => format!("write a list of texts, for example {key} = [\"a\", \"b\"]"),
            };
            wrong_type(ctx, v, &what, "a list", &fix);
            return None;
        };
        let what = format!("an item of {what}");
        let value = items.iter().filter_map(|item| text_of(ctx, item, &what, "")).collect();
        Some(At { value, span: v.span() })
    }

    /// The table `key` in this one.
    pub(super) fn table(&self, ctx: &mut Ctx<'_>, key: &str) -> Option<Section<'t>> {
        self.as_table(ctx, key, self.entry(key)?, None)
    }

    /// The table `key` in this one, which is short and mostly written in one line, as in `example`.
    pub(super) fn inline_table(&self, ctx: &mut Ctx<'_>, key: &str, example: &str) -> Option<Section<'t>> {
        self.as_table(ctx, key, self.entry(key)?, Some(example))
    }

    /// All tables in the table `key`, with their names.
    pub(super) fn tables(&self, ctx: &mut Ctx<'_>, key: &str) -> Vec<(At<&'t str>, Section<'t>)> {
        let Some(outer) = self.table(ctx, key) else { return Vec::new() };
        outer
            .entries()
            .filter_map(|(name, v)| Some((name.clone(), outer.as_table(ctx, name.value, v, None)?)))
            .collect()
    }

    /// All keys and values.
    pub(super) fn entries(&self) -> impl Iterator<Item = (At<&'t str>, &'t Spanned<DeValue<'t>>)> + use<'t> {
        self.table.iter().map(|(k, v)| (At { value: k.get_ref().as_ref(), span: k.span() }, v))
    }

    /// The list of tables `key`.
    pub(super) fn table_list(
        &self,
        ctx: &mut Ctx<'_>,
        key: &str,
        example: &str,
    ) -> Option<At<Vec<Section<'t>>>> {
        let v = self.entry(key)?;
        let DeValue::Array(items) = v.get_ref() else {
            let fix = format!("write {example}");
            wrong_type(ctx, v, &format!("'{key}'{}", self.place()), "a list of tables", &fix);
            return None;
        };
        let mut tables = Vec::new();
        for (n, item) in items.iter().enumerate() {
            let title = self.child_title(&format!("{key}.{}", n + 1));
            if let DeValue::Table(table) = item.get_ref() {
                tables.push(Section { title, span: item.span(), table });
            } else {
                wrong_type(
                    ctx,
                    item,
                    &format!("item {} of '{key}'", n + 1),
                    "a table",
                    &format!("write {example}"),
                );
            }
        }
        Some(At { value: tables, span: v.span() })
    }

    fn as_table(
        &self,
        ctx: &mut Ctx<'_>,
        key: &str,
        v: &'t Spanned<DeValue<'t>>,
        example: Option<&str>,
    ) -> Option<Section<'t>> {
        let title = self.child_title(key);
        if let DeValue::Table(table) = v.get_ref() {
            return Some(Section { span: v.span(), table, title });
        }
        let fix = match example {
            Some(example) => format!("write {key} = {example}"),
            None => format!("write a table that starts with {title}"),
        };
        wrong_type(ctx, v, &format!("'{key}'{}", self.place()), "a table", &fix);
        None
    }
}

/// The text of a value.
fn text_of<'t>(ctx: &mut Ctx<'_>, v: &'t Spanned<DeValue<'t>>, what: &str, key: &str) -> Option<At<&'t str>> {
    if let Some(value) = v.get_ref().as_str() {
        return Some(At { value, span: v.span() });
    }
    let plain = plain(v.get_ref());
    let fix = match (plain, key) {
        (Some(p), "") => format!("write \"{p}\""),
        (Some(p), key) => format!("write {key} = \"{p}\""),
        (None, "") => "write a text in double quotes".to_owned(),
        (None, key) => format!("write a text in double quotes: {key} = \"…\""),
    };
    wrong_type(ctx, v, what, "a text", &fix);
    None
}

/// A number, flag or date as it is written.
fn plain(v: &DeValue<'_>) -> Option<String> {
    match v {
        DeValue::Integer(n) => Some(n.to_string()),
        DeValue::Float(n) => Some(n.to_string()),
        DeValue::Boolean(b) => Some(b.to_string()),
        DeValue::Datetime(d) => Some(d.to_string()),
        DeValue::String(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Reports a value of the wrong type.
fn wrong_type(ctx: &mut Ctx<'_>, v: &Spanned<DeValue<'_>>, what: &str, wanted: &str, fix: &str) {
    let got = match v.get_ref() {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with decimals",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    ctx.error(&v.span(), &format!("{what} must be {wanted}, not {got}"), fix);
}

/// A name as near to `written` as the rules allow, when anything is left of it; `keep` are further characters.
pub(super) fn rename(written: &str, keep: &[char]) -> Option<String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || keep.contains(&c);
    let dashed: String = written.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).collect();
    let words: Vec<&str> = dashed.split('-').filter(|w| !w.is_empty()).collect();
    let better: String = words.join("-").chars().take(32).collect();
    let better = better.trim_matches('-');
    (!better.is_empty()).then(|| better.to_owned())
}

/// `'a', 'b', 'c'`.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(|n| format!("'{n}'")).collect::<Vec<_>>().join(", ")
}
