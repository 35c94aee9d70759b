//! Other keys than the table's, as an operator's own file asks for them. What would make an answer ambiguous, or leave
//! the safe direction without a key, is refused.

use super::{Action, Binding, Context, Key, TABLE};

/// The lines of the key table, as this operator has them.
#[derive(Clone, Copy, Debug)]
pub struct Table(&'static [Binding]);

impl Default for Table {
    fn default() -> Self {
        Self(TABLE)
    }
}

impl Table {
    /// The lines, in their order.
    #[must_use]
    pub fn lines(self) -> &'static [Binding] {
        self.0
    }

    /// The key that does `action`, as sentences name it: the first, where there are several.
    #[must_use]
    pub fn key(self, action: Action) -> &'static str {
        let line = self.0.iter().find(|b| b.action == action);
        line.map_or("", |b| b.caption.split(", ").next().unwrap_or(b.caption))
    }
}

/// Keys that somebody wants for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish<'a> {
    /// What the palette calls it; dashes and underscores stand for spaces.
    pub name: &'a str,
    /// The keys, as they are written.
    pub keys: Vec<&'a str>,
}

/// Why a wish is not granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which wish.
    pub wish: usize,
    /// Which of its keys; `None` when it is about the command.
    pub key: Option<usize>,
    /// Why.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

/// Ends of escape sequences that a slow link may split: they arrive as letters, and nobody has pressed them.
pub(super) const ENDS: &[char] = &[
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'P', 'Q', 'R', 'S', '[', 'O', 'Z', '~', ';', 'M', 'm', 'I', '<',
    'u',
];

/// Keys with a name, and what they are called.
const NAMED: &[(Key, &str)] = &[
    (Key::Char(' '), "space"),
    (Key::Enter, "Enter"),
    (Key::Esc, "Esc"),
    (Key::Tab, "Tab"),
    (Key::BackTab, "Shift-Tab"),
    (Key::Up, "up"),
    (Key::Down, "down"),
    (Key::Left, "left"),
    (Key::Right, "right"),
    (Key::PageUp, "PgUp"),
    (Key::PageDown, "PgDn"),
    (Key::Home, "Home"),
    (Key::End, "End"),
    (Key::Backspace, "Backspace"),
];

/// The highest function key.
const FUNCTIONS: u8 = 12;

impl Key {
    /// The key that is called so: one character, `space`, `Ctrl-P`, `F5`, `PgUp`, …; of names the case does not matter.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut chars = name.chars();
        if let (Some(c), None) = (chars.next(), chars.next()) {
            return (!c.is_control() && !c.is_whitespace()).then_some(Self::Char(c));
        }
        let small = name.to_ascii_lowercase();
        if let Some((key, _)) = NAMED.iter().find(|(_, n)| n.to_ascii_lowercase() == small) {
            return Some(*key);
        }
        if let Some(c) = small.strip_prefix("ctrl-").map(|rest| rest.as_bytes()) {
            let [c @ b'a'..=b'z'] = c else { return None };
            return Some(Self::Ctrl(char::from(*c)));
        }
        let n: u8 = small.strip_prefix('f')?.parse().ok()?;
        (1..=FUNCTIONS).contains(&n).then_some(Self::F(n))
    }

    /// What it is called.
    #[must_use]
    pub fn name(self) -> String {
        if let Some((_, name)) = NAMED.iter().find(|(key, _)| *key == self) {
            return (*name).to_owned();
        }
        match self {
            Self::Char(c) => c.to_string(),
            Self::Ctrl(c) => format!("Ctrl-{}", c.to_ascii_uppercase()),
            Self::F(n) => format!("F{n}"),
            _ => String::new(),
        }
    }
}

/// What all commands that can have keys are called.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|b| b.names).copied()
}

/// The line of the table that is called so.
fn line(name: &str) -> Option<usize> {
    let name = name.replace(['-', '_'], " ");
    TABLE.iter().position(|b| b.names.iter().any(|n| n.replace('-', " ").trim() == name))
}

/// Whether there is such a command.
#[must_use]
pub fn knows(name: &str) -> bool {
    line(name).is_some()
}

/// Whether it asks before it does anything.
fn asks(action: Action) -> bool {
    matches!(
        action,
        Action::Abort
            | Action::Resume
            | Action::Promote
            | Action::PromoteFull
            | Action::Rollback
            | Action::Retry
            | Action::Deploy
    )
}

/// Why this key cannot do that, and what to do instead.
fn unfit(key: Key, b: &Binding) -> Option<(String, &'static str)> {
    let name = key.name();
    let typing = [Context::Filter, Context::Palette, Context::Name, Context::Pick];
    match key {
        Key::Enter | Key::Esc => Some((
            format!("{name} answers questions and goes back, everywhere"),
            "choose another key; this one is fixed",
        )),
        Key::Char('y') => Some((
            "y answers questions with yes: a key that bounces would ask and answer".to_owned(),
            "choose another key; this one is fixed",
        )),
        Key::Ctrl('c') => {
            Some(("Ctrl-C leaves, everywhere".to_owned(), "choose another key; this one is fixed"))
        }
        Key::Char(c) if ENDS.contains(&c) && !asks(b.action) => Some((
            format!("'{c}' may be the end of an arrow key that a slow link has split"),
            "choose another key for what is done without a question",
        )),
        Key::Char(_) | Key::Backspace if b.contexts.iter().any(|c| typing.contains(c)) => Some((
            format!("'{name}' could not be typed any more"),
            "choose a key with Ctrl- or a function key for what works everywhere",
        )),
        _ => None,
    }
}

/// What a line is called in a message.
fn called(b: &Binding) -> &'static str {
    match b.names.first() {
        Some(name) => name,
        None if b.help.is_empty() => b.label,
        None => b.help,
    }
}

/// A line of the table that has other keys, by which wish, and where each key stands in that.
struct Changed {
    line: usize,
    wish: usize,
    keys: Vec<(Key, usize)>,
}

/// The table with other keys for some commands, all of which [`knows`] knows.
///
/// # Errors
/// Every key that cannot be had, and why.
pub fn table(wishes: &[Wish<'_>]) -> Result<Table, Vec<Refusal>> {
    let mut refused = Vec::new();
    let mut lines = TABLE.to_vec();
    let mut changed: Vec<Changed> = Vec::new();
    for (n, wish) in wishes.iter().enumerate() {
        let Some(at) = line(wish.name) else { continue };
        let Some(b) = lines.get_mut(at) else { continue };
        let mut keys: Vec<(Key, usize)> = Vec::new();
        for (k, written) in wish.keys.iter().enumerate() {
            let mut refuse = |message: String, fix: &str| {
                refused.push(Refusal { wish: n, key: Some(k), message, fix: fix.to_owned() });
            };
            match Key::named(written).map(|key| (key, unfit(key, b))) {
                None => refuse(
                    format!("'{written}' is no key"),
                    "write one character, or space, Tab, up, PgDn, Home, Ctrl-P, F5",
                ),
                Some((_, Some((message, fix)))) => refuse(message, fix),
                Some((key, None)) if keys.iter().all(|(other, _)| *other != key) => keys.push((key, k)),
                Some(_) => {}
            }
        }
        if wish.keys.is_empty() && matches!(b.action, Action::Abort | Action::Pause) {
            let name = called(b);
            refused.push(Refusal {
                wish: n,
                key: None,
                message: format!("{name} must have a key"),
                fix: format!("write {name} = \"{}\", or remove the line", b.caption),
            });
        }
        rekey(b, &keys);
        changed.push(Changed { line: at, wish: n, keys });
    }
    // One key for both, unless somebody says otherwise.
    let configured = |lines: &[Binding], action| {
        changed.iter().position(|c| lines.get(c.line).is_some_and(|b| b.action == action))
    };
    if let Some(pause) = configured(&lines, Action::Pause)
        && configured(&lines, Action::Resume).is_none()
        && let Some(at) = lines.iter().position(|b| b.action == Action::Resume)
        && let Some((wish, keys)) = changed.get(pause).map(|c| (c.wish, c.keys.clone()))
        && let Some(b) = lines.get_mut(at)
    {
        rekey(b, &keys);
        changed.push(Changed { line: at, wish, keys });
    }
    refused.extend(conflicts(&lines, &changed));
    refused.dedup_by(|a, b| (a.wish, a.key) == (b.wish, b.key));
    if refused.is_empty() {
        // Read once, and needed until the program ends: the same life that the built-in table has.
        Ok(Table(Vec::leak(lines)))
    } else {
        Err(refused)
    }
}

fn rekey(b: &mut Binding, keys: &[(Key, usize)]) {
    let names: Vec<String> = keys.iter().map(|(k, _)| k.name()).collect();
    let caption = match b.names.first() {
        Some(name) if names.is_empty() => format!(":{name}"),
        _ => names.join(", "),
    };
    b.keys = Vec::leak(keys.iter().map(|(k, _)| *k).collect());
    b.caption = String::leak(caption);
}

/// Keys that would mean two things in one place.
fn conflicts(lines: &[Binding], changed: &[Changed]) -> Vec<Refusal> {
    let mut out = Vec::new();
    for (turn, Changed { line: at, wish, keys }) in changed.iter().enumerate() {
        let Some(b) = lines.get(*at) else { continue };
        for (key, k) in keys {
            let clash = lines.iter().enumerate().find(|(other, o)| {
                // Of two wishes, the second is the one too many.
                let later = changed.iter().skip(turn + 1).any(|later| later.line == *other);
                let toggle = matches!(
                    (b.action, o.action),
                    (Action::Pause, Action::Resume) | (Action::Resume, Action::Pause)
                );
                other != at
                    && !later
                    && !toggle
                    && b.action != o.action
                    && o.keys.contains(key)
                    && o.contexts.iter().any(|c| b.contexts.contains(c))
            });
            if let Some((_, o)) = clash {
                let fix = match o.names.first() {
                    Some(name) => {
                        format!("choose another key, or another one for that: \"{name}\" = \"KEY\"")
                    }
                    None => "choose another key; that one is fixed".to_owned(),
                };
                out.push(Refusal {
                    wish: *wish,
                    key: Some(*k),
                    message: format!("{} is taken: {}", key.name(), called(o)),
                    fix,
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish<'a>(name: &'a str, keys: &[&'a str]) -> Wish<'a> {
        Wish { name, keys: keys.to_vec() }
    }

    /// The messages of what is refused.
    fn refused(wishes: &[Wish<'_>]) -> Vec<String> {
        table(wishes).expect_err("granted").into_iter().map(|r| r.message).collect()
    }

    #[test]
    fn keys_are_called_what_they_are_written_as() {
        for (key, name) in [
            (Key::Char('x'), "x"),
            (Key::Char('X'), "X"),
            (Key::Char(' '), "space"),
            (Key::Ctrl('p'), "Ctrl-P"),
            (Key::F(5), "F5"),
            (Key::PageDown, "PgDn"),
            (Key::Char('-'), "-"),
        ] {
            assert_eq!((Key::named(name), key.name().as_str()), (Some(key), name));
        }
        assert_eq!(Key::named("pgdn"), Some(Key::PageDown));
        assert_eq!(Key::named("F"), Some(Key::Char('F')));
        for none in ["", " ", "F0", "F13", "Ctrl-", "Ctrl-1", "Ctrl-PP", "Alt-x", "nonsense", "\u{1b}"] {
            assert_eq!(Key::named(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_asked_for_is_what_bar_help_and_sentences_say() {
        let t = table(&[wish("abort", &["x"]), wish("promote", &["p", "F5"]), wish("logs", &[])]).unwrap();
        let line = |name| t.lines().iter().find(|b| b.names.contains(&name)).unwrap();
        assert_eq!((line("abort").keys, line("abort").caption), (&[Key::Char('x')][..], "x"));
        assert_eq!((line("promote").keys.len(), line("promote").caption), (2, "p, F5"));
        assert_eq!((t.key(Action::Promote), t.key(Action::Deploy)), ("p", "d"));
        assert_eq!((line("logs").keys.len(), line("logs").caption), (0, ":logs"));
        assert_eq!(t.lines().len(), TABLE.len());
        assert!(table(&[wish("promote-full", &["F"]), wish("abort", &["A"])]).is_ok(), "both ask");
    }

    #[test]
    fn resume_goes_with_pause_unless_it_has_a_key_of_its_own() {
        let keys = |wishes: &[Wish<'_>]| {
            let t = table(wishes).unwrap();
            (t.key(Action::Pause), t.key(Action::Resume))
        };
        assert_eq!(keys(&[wish("pause", &["x"])]), ("x", "x"));
        assert_eq!(keys(&[wish("pause", &["x"]), wish("resume", &["w"])]), ("x", "w"));
        assert_eq!(keys(&[wish("resume", &["w"])]), ("space", "w"));
    }

    #[test]
    fn the_safe_direction_keeps_a_key_and_answers_keep_theirs() {
        assert_eq!(refused(&[wish("abort", &[])]), ["abort must have a key"]);
        assert_eq!(refused(&[wish("pause", &[])]), ["pause must have a key"]);
        for (name, key, why) in [
            ("abort", "y", "answers questions"),
            ("pause", "Enter", "answers questions"),
            ("scope", "Esc", "answers questions"),
            ("zoom", "Ctrl-C", "leaves, everywhere"),
            ("pause", "A", "a slow link"),
            ("redraw", "x", "could not be typed"),
            ("zoom", "Alt-z", "is no key"),
        ] {
            let said = refused(&[wish(name, &[key])]);
            assert!(said.len() == 1 && said[0].contains(why), "{name} {key}: {said:?}");
        }
    }

    #[test]
    fn one_key_has_one_meaning_in_one_place() {
        assert_eq!(refused(&[wish("abort", &["s"])]), ["s is taken: scope"]);
        assert_eq!(refused(&[wish("scope", &["j"])]), ["j is taken: down"]);
        // Said of the second of two that both ask for it, once.
        let both = [wish("zoom", &["w"]), wish("abort", &["x", "w"])];
        let said = table(&both).unwrap_err();
        assert_eq!((said.len(), said[0].wish, said[0].key), (1, 1, Some(1)), "{said:?}");
        // Who moves the other one out of the way gets it.
        assert!(table(&[wish("abort", &["s"]), wish("scope", &["w"])]).is_ok());
        assert!(table(&[wish("scope", &["a"]), wish("abort", &["s"])]).is_ok(), "swapped");
        // In a replay, where those keys mean other things, there is no rollout to promote.
        assert!(table(&[wish("fold", &["x", "-"])]).is_ok());
    }
}
