//! A share in per cent, exactly as it is written: never through binary fractions.

use toml::de::DeValue;

use crate::fleet::ctx::{At, Ctx};
use crate::fleet::names::Bp;
use crate::fleet::read::Section;
use crate::fleet::units;

/// The share `key`, more than 0 and less than 100 per cent. `hint` ends what is said about a bad one.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>, key: &str, hint: &str) -> Option<At<Bp>> {
    let (_, v) = section.entries().find(|(k, _)| k.value == key)?;
    let span = v.span();
    let written = match v.get_ref() {
        DeValue::Integer(n) => n.to_string(),
        DeValue::Float(n) => n.as_str().to_owned(),
        other => {
            let number = other.as_str().map(|s| s.trim().trim_end_matches('%').trim());
            let fix = match number.filter(|n| units::share(n, key).is_ok()) {
                Some(n) => format!("write {key} = {n}"),
                None => format!("write a number of per cent, for example {key} = 5"),
            };
            ctx.error(&span, &format!("'{key}'{} must be a number of per cent", section.place()), &fix);
            return None;
        }
    };
    match units::share(&written, key) {
        Ok(value) => Some(At { value, span }),
        Err((message, fix)) => {
            ctx.error(&span, &message, &format!("{fix}; {hint}"));
            None
        }
    }
}
