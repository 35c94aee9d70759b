//! Folding and unfolding the groups of the fleet pane.

use crate::tui::model::{Model, Pane};
use crate::tui::tree::{ALL, Key};

/// A tree of what was a list, or the other way round.
pub(super) fn tree(model: &mut Model) {
    if model.tree.on {
        // Without headings, the first instance below it is what was meant.
        let below = model.group(model.cursor).map(|g| g.key.clone());
        if let Some(key) = below {
            let all = model.snapshot.as_ref().map(|s| s.instances.as_slice()).unwrap_or_default();
            let first = all
                .iter()
                .find(|i| i.service == key.service && key.host.as_ref().is_none_or(|h| *h == i.host));
            model.instance = first.map(|i| i.id.clone());
        }
    }
    model.tree.on = !model.tree.on;
    model.tree.chosen = None;
    model.focus = Pane::Fleet;
    // The order is another one.
    model.rows_stale = true;
    model.settle();
}

fn changed(model: &mut Model) {
    model.focus = Pane::Fleet;
    model.regrow();
}

fn set(model: &mut Model, key: Key, folded: bool) {
    if folded {
        model.tree.folded.insert(key.clone());
    } else {
        model.tree.folded.remove(&key);
    }
    model.tree.chosen = Some(key);
    changed(model);
}

/// Folds what the selection is in. What is folded already is left for the group around it.
pub(super) fn fold(model: &mut Model) {
    if !model.tree.on {
        tree(model);
    }
    let key = match model.group(model.cursor) {
        Some(g) if !g.folded => g.key.clone(),
        Some(g) if g.depth > 0 => {
            let around = Key { host: None, ..g.key.clone() };
            model.tree.chosen = Some(around);
            changed(model);
            return;
        }
        Some(_) => return,
        None => match model.instance_view() {
            Some(i) => model.home(i),
            None => return,
        },
    };
    set(model, key, true);
}

/// Unfolds the selected heading; one that is unfolded is left for what is below it.
pub(super) fn unfold(model: &mut Model) {
    let Some(g) = model.group(model.cursor) else { return };
    if g.folded {
        let key = g.key.clone();
        set(model, key, false);
    } else {
        model.focus = Pane::Fleet;
        model.select_row(model.cursor + 1);
    }
}

/// Enter on a heading.
pub(super) fn toggle(model: &mut Model) {
    let Some((key, folded)) = model.group(model.cursor).map(|g| (g.key.clone(), g.folded)) else { return };
    set(model, key, !folded);
}

/// All groups of a name, which a host has once in every service; or `all`.
pub(super) fn named(model: &mut Model, name: &str, folded: bool) {
    if !model.tree.on {
        tree(model);
    }
    let meant = |key: &Key| name == ALL || key.name().as_str() == name;
    let keys: Vec<Key> = model.tree.groups.iter().map(|g| g.key.clone()).filter(meant).collect();
    for key in keys {
        if folded {
            model.tree.folded.insert(key);
        } else {
            model.tree.folded.remove(&key);
        }
    }
    if !folded && name == ALL {
        // Also what is folded out of sight.
        model.tree.folded.clear();
    }
    changed(model);
}
