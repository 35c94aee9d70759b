//! How a revision of a service is run: an image or a command.

use super::exclusive;
use crate::fleet::ctx::{At, Ctx};
use crate::fleet::model::{Pull, Run};
use crate::fleet::proxies::program;
use crate::fleet::read::Section;
use crate::fleet::suggest::nearest;

/// What is replaced in the arguments of a command.
const PLACEHOLDERS: [&str; 3] = ["version", "port", "address"];

/// `image` or `command`, with what belongs to it.
pub(super) fn read(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Option<Run> {
    if exclusive(
        ctx,
        section,
        "image",
        "command",
        "an image runs on Docker hosts, a command on process hosts",
    ) {
        return None;
    }
    if section.has("command") {
        let why = "is for images only";
        section.refuse(ctx, &["args"], why, "remove the line; arguments belong into 'command'");
        section.refuse(ctx, &["pull", "network"], why, "remove the line");
        return Some(Run::Command { argv: program_and_arguments(ctx, section, "command")? });
    }
    section.missing(
        ctx,
        "image",
        "image = \"registry.example:5000/shop/web\" (or command = [\"./app\", \"--port\", \"{port}\"])",
    );
    let args = section.texts(ctx, "args").map(|a| a.value).unwrap_or_default();
    let pull = pull(ctx, section);
    let image = section.filled(ctx, "image")?;
    Some(Run::Image {
        repository: repository(ctx, section, &image)?,
        args: args.iter().map(|a| a.value.to_owned()).collect(),
        pull,
    })
}

/// The list `key` of a program and its arguments, the program as a path or as a name to be found in `PATH`.
pub(super) fn program_and_arguments(
    ctx: &mut Ctx<'_>,
    section: &Section<'_>,
    key: &str,
) -> Option<Vec<String>> {
    let list = section.texts(ctx, key)?;
    let Some(first) = list.value.first().filter(|f| !f.value.trim().is_empty()) else {
        let message = format!("'{key}'{} names no program", section.place());
        ctx.error(
            &list.span,
            &message,
            "write the program and its arguments, for example [\"./app\", \"--port\", \"{port}\"]",
        );
        return None;
    };
    if list.value.len() == 1 && first.value.contains(' ') && !first.value.contains('/') {
        let words: Vec<_> = first.value.split_whitespace().map(|w| format!("\"{w}\"")).collect();
        let message = format!("'{}' is one word to the system: no shell splits it", first.value);
        ctx.warn(&first.span, &message, &format!("write {key} = [{}]", words.join(", ")));
    }
    for arg in &list.value {
        placeholders(ctx, arg);
    }
    let mut argv: Vec<String> = list.value.iter().map(|a| a.value.to_owned()).collect();
    if let Some(file) = argv.first_mut() {
        *file = program(ctx, first.value).to_string_lossy().into_owned();
    }
    Some(argv)
}

/// Warns about `{prot}`: braces may be meant as they are, but probably are not.
fn placeholders(ctx: &mut Ctx<'_>, arg: &At<&str>) {
    for part in arg.value.split('{').skip(1) {
        let Some((word, _)) = part.split_once('}') else { continue };
        if PLACEHOLDERS.contains(&word) {
            continue;
        }
        if let Some(near) = nearest(word, PLACEHOLDERS) {
            ctx.warn(
                &arg.span,
                &format!("'{{{word}}}' is not replaced by anything"),
                &format!("write {{{near}}}"),
            );
        }
    }
}

fn pull(ctx: &mut Ctx<'_>, section: &Section<'_>) -> Pull {
    let Some(text) = section.text(ctx, "pull") else { return Pull::Missing };
    match text.value {
        "missing" => Pull::Missing,
        "always" => Pull::Always,
        "never" => Pull::Never,
        other => {
            let fix = match nearest(other, ["missing", "always", "never"]) {
                Some(near) => format!("write pull = \"{near}\""),
                None => "write \"missing\", \"always\" or \"never\"".to_owned(),
            };
            ctx.error(&text.span, &format!("unknown pull '{other}'{}", section.place()), &fix);
            Pull::Missing
        }
    }
}

/// A repository without tag and digest: the version is the tag.
fn repository(ctx: &mut Ctx<'_>, section: &Section<'_>, image: &At<&str>) -> Option<String> {
    let text = image.value;
    let (name, digest) = text.split_once('@').map_or((text, None), |(n, d)| (n, Some(d)));
    let last = name.rsplit('/').next().unwrap_or(name);
    let (bare, tag) = match last.split_once(':') {
        Some((_, tag)) => {
            (name.strip_suffix(tag).and_then(|n| n.strip_suffix(':')).unwrap_or(name), Some(tag))
        }
        None => (name, None),
    };
    if let (None, Some(tag)) = (digest, tag) {
        let version =
            if section.has("version") { String::new() } else { format!(" and version = \"{tag}\"") };
        ctx.error(
            &image.span,
            &format!("image '{text}' has a tag: the tag is the version, which a release names"),
            &format!("write image = \"{bare}\"{version}"),
        );
        return None;
    }
    if digest.is_some() {
        let message = format!("image '{text}' has a digest: Pilothouse resolves the version's digest itself");
        ctx.error(&image.span, &message, &format!("write image = \"{bare}\""));
        return None;
    }
    if !is_repository(text) {
        let lower = text.trim().to_ascii_lowercase();
        let fix = match lower.split_once("://") {
            Some((_, rest)) if is_repository(rest) => format!("write image = \"{rest}\""),
            None if is_repository(&lower) => format!("write image = \"{lower}\""),
            _ => "write a repository, for example \"registry.example:5000/shop/web\": a-z, 0-9, '.', '_', '-' and '/'".to_owned(),
        };
        ctx.error(&image.span, &format!("'{text}' is not an image repository"), &fix);
        return None;
    }
    Some(text.to_owned())
}

fn is_repository(text: &str) -> bool {
    let mut parts: Vec<&str> = text.split('/').collect();
    let first = parts.first().copied().unwrap_or_default();
    // Only a first part that looks like a host may have a port.
    if parts.len() > 1 && (first.contains(['.', ':']) || first == "localhost") {
        let (host, port) = first.split_once(':').map_or((first, None), |(h, p)| (h, Some(p)));
        let host_ok =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        if !host_ok || port.is_some_and(|p| p.parse::<u16>().is_err()) {
            return false;
        }
        parts.remove(0);
    }
    text.len() <= 255
        && parts.iter().all(|p| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            edge(p.bytes().next())
                && edge(p.bytes().last())
                && p.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
        })
}

#[cfg(test)]
mod tests {
    use super::is_repository;

    #[test]
    fn repositories_are_what_a_registry_takes() {
        for good in [
            "web",
            "shop/web",
            "registry:5000/shop/web",
            "registry.example/shop/web",
            "localhost/web",
            "REG.example:5000/a/b-c_d.e",
        ] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "",
            "Web",
            "shop/Web",
            "shop//web",
            "/web",
            "web/",
            "reg:port/web",
            "a b",
            "-web",
            "wéb",
            ":5000/web",
        ] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
