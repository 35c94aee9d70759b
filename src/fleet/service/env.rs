//! The environment of instances: plain settings in the file, secrets in a file of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crate::fleet::ctx::{At, Ctx};
use crate::fleet::env_file::{self, RESERVED};
use crate::fleet::problem::Problem;
use crate::fleet::read::Section;

/// The file of an `env_file` key and the names it sets.
pub(super) struct EnvFile {
    pub(super) value: PathBuf,
    names: BTreeSet<String>,
}

/// `env_file`, read once so that its problems are shown with all others.
pub(super) fn file(ctx: &mut Ctx<'_>, section: &Section<'_>, is_process: bool) -> Option<EnvFile> {
    let path = section.path(ctx, "env_file")?;
    match env_file::entries(&path.value) {
        Ok(entries) => {
            for e in entries.iter().filter(|e| is_process && RESERVED.contains(&e.name.as_str())) {
                let message = format!("'{}' is set by Pilothouse for processes", e.name);
                ctx.add(Problem::of_line(&path.value, e.line, &message, "remove the line"));
            }
            Some(EnvFile { value: path.value, names: entries.into_iter().map(|e| e.name).collect() })
        }
        Err(problems) => {
            for p in problems.list() {
                if p.line > 0 {
                    ctx.add(p.clone());
                } else {
                    // The file as a whole: what has to be repaired may well be the name that is written here.
                    ctx.error(&path.span, p.message.as_str(), p.fix.as_str());
                }
            }
            None
        }
    }
}

/// `env`. Lines of it are never shown: somebody may have put a secret there.
pub(super) fn table(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    is_process: bool,
    file: Option<&EnvFile>,
) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let Some(table) = section.table(ctx, "env") else { return out };
    for (name, value) in table.entries() {
        let At { value: written, span } = &name;
        let place = table.place();
        if !env_file::is_name(written) {
            let fix = "write a name out of A-Z, a-z, 0-9 and _, not starting with a digit";
            ctx.error_unseen(
                span,
                &format!("'{written}'{place} is not the name of an environment variable"),
                fix,
            );
        } else if is_process && RESERVED.contains(written) {
            let message = format!("'{written}'{place} is set by Pilothouse for processes");
            ctx.error_unseen(span, &message, "remove it; {port} and {address} can be used in 'command'");
        } else if file.is_some_and(|f| f.names.contains(*written)) {
            let message = format!("'{written}'{place} is also set in the environment file");
            ctx.error_unseen(span, &message, "keep one of the two");
        }
        if looks_secret(written) {
            let message = format!(
                "'{written}'{place} looks like a secret, and what stands here is kept in the journal"
            );
            ctx.warn_unseen(span, &message, "put it into 'env_file', whose values are never stored");
        }
        match value.get_ref().as_str() {
            Some(text) if text.contains('\0') => {
                ctx.error_unseen(
                    span,
                    &format!("the value of '{written}'{place} holds a NUL character"),
                    "remove it",
                );
            }
            Some(text) => {
                out.insert((*written).to_owned(), text.to_owned());
            }
            None => {
                let message = format!("the value of '{written}'{place} must be a text");
                ctx.error_unseen(span, &message, &format!("put it into quotes: {written} = \"…\""));
            }
        }
    }
    out
}

/// Names that operators give to secrets.
fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "CREDENTIAL"]
        .iter()
        .any(|w| name.contains(w))
        && !name.ends_with("_FILE")
        && !name.ends_with("_PATH")
}
