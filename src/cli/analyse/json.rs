//! Counts as JSON lines: an object a row.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::rows::{COLUMNS, Cell, Cells, QUOTED, Reader, needed};
use crate::fleet::suggest::nearest;
use crate::text::Safe;

/// All fields of an object as they are written, so that what is wrong can be pointed at.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        d.deserialize_map(All)
    }
}

/// The fields of a row that count.
pub(super) fn row<'a>(reader: &mut Reader<'_>, line: &'a str, at: usize) -> Option<Cells<'a>> {
    let whole = at..at + line.len();
    if line.trim_start().starts_with('[') {
        let fix = "write one object a line; `jq -c '.[]'` makes lines of an array";
        reader.not_a_row(&whole, "this is an array", fix);
        return None;
    }
    let fields = match serde_json::from_str::<Fields<'a>>(line) {
        Ok(Fields(fields)) => fields,
        Err(e) => {
            // The reader counts lines of this line.
            let why = e.to_string();
            let why = why.split(" at line ").next().unwrap_or_default();
            let start = at + e.column().saturating_sub(1).min(line.len());
            let fix = format!("write one object a line (`jq -c .` does): {}", example());
            reader.not_a_row(&(start..(start + 1).min(whole.end)), &format!("this is not JSON: {why}"), &fix);
            return None;
        }
    };
    let mut cells: [Option<Cell<'a>>; COLUMNS.len()] = Default::default();
    let span = |raw: &RawValue| {
        // Both lie in the same text.
        let start = at + (raw.get().as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
        start..start + raw.get().len()
    };
    for (name, raw) in &fields {
        let Some((_, cell)) = COLUMNS.iter().zip(&mut cells).find(|(known, _)| *known == name) else {
            continue;
        };
        let new = Cell { text: Cow::Borrowed(raw.get()), span: span(raw) };
        if cell.replace(new).is_some() {
            reader.wrong(&span(raw), &format!("the field {name} is there twice"), "leave one of them out");
            return None;
        }
    }
    let mut complete = true;
    for (name, cell) in COLUMNS.iter().zip(&cells) {
        match cell {
            None => {
                complete = false;
                let others = || fields.iter().filter(|(n, _)| !COLUMNS.contains(&n.as_str()));
                let fix = match others().find(|(n, _)| nearest(n, [*name]).is_some()) {
                    Some((other, _)) => format!("write \"{name}\" instead of \"{other}\""),
                    None => format!("add it: each object needs {}", needed()),
                };
                reader.wrong(&whole, &format!("there is no field \"{name}\""), &fix);
            }
            Some(cell) if !cell.text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                complete = false;
                let inside = cell.text.trim_matches('"');
                let fix = match inside.parse::<f64>() {
                    Ok(_) => format!("write {inside} without quotes"),
                    Err(_) => "write a number; leave the line out when it is not known".to_owned(),
                };
                let written = Safe::capped(&cell.text, QUOTED);
                reader.wrong(&cell.span, &format!("{name} is {written}, not a number"), &fix);
            }
            Some(_) => {}
        }
    }
    let [a, b, c, d, e] = cells;
    if complete { Some([a?, b?, c?, d?, e?]) } else { None }
}

/// A row as it should be.
fn example() -> &'static str {
    r#"{"t":1,"stable_n":95,"stable_bad":0,"candidate_n":5,"candidate_bad":0}"#
}
