//! The fleet pane as a tree: folding, and what the selection, the filter and the order have to do with it.

use super::*;
use crate::api::{HealthView, InstanceView};
use crate::tui::tree::Tally;

/// The rows in order: headings with `+` where they are folded, instances by the end of their id.
fn shown(rig: &Rig) -> String {
    let row = |n| match (rig.model.group(n), rig.model.row(n)) {
        (Some(g), _) => format!("{}{}", if g.folded { "+" } else { "-" }, g.key.name()),
        (None, Some(i)) => i.id.as_str().split_once('-').unwrap().1.to_owned(),
        (None, None) => panic!("row {n} is nothing"),
    };
    (0..rig.model.rows.len()).map(row).collect::<Vec<_>>().join(" ")
}

fn chosen(rig: &Rig) -> String {
    rig.model.group(rig.model.cursor).map(|g| g.key.name().to_string()).unwrap_or_default()
}

fn run(rig: &mut Rig, command: &str) {
    rig.key(Key::Char(':'));
    rig.typed(command);
    rig.key(Key::Enter);
}

const NODE_1: &str = "9c1e0a77-1 7f3a0b11-1 7f3a0b11-4";
const NODE_2: &str = "9c1e0a77-2 7f3a0b11-2 7f3a0b11-5";
const NODE_3: &str = "7f3a0b11-3 7f3a0b11-6";

#[test]
fn a_group_is_folded_around_the_selection_and_unfolded_with_what_is_left_of_the_way() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('v'));
    assert_eq!(shown(&rig), format!("-node-1 {NODE_1} -node-2 {NODE_2} -node-3 {NODE_3}"));
    assert_eq!(rig.model.focus, Pane::Fleet);
    rig.key(Key::Down);
    rig.key(Key::Char('-'));
    assert_eq!(shown(&rig), format!("+node-1 -node-2 {NODE_2} -node-3 {NODE_3}"));
    assert_eq!((chosen(&rig).as_str(), &rig.model.instance), ("node-1", &None));
    // What is about an instance is refused on a heading.
    assert_eq!(rig.key(Key::Char('l')), []);
    assert!(rig.notice().contains("no instance is selected"));
    assert_eq!(rig.key(Key::Char('c')), [Cmd::Copy("node-1".into())]);
    for (key, folded) in [
        (Key::Enter, false),
        (Key::Enter, true),
        (Key::Right, false),
        (Key::Left, true),
        (Key::Char('+'), false),
    ] {
        rig.key(key);
        assert_eq!(shown(&rig).starts_with("+node-1"), folded, "{key:?}");
        assert_eq!(chosen(&rig), "node-1");
    }
    rig.key(Key::Right);
    assert_eq!(rig.model.instance.as_ref().unwrap().as_str(), "web-9c1e0a77-1", "into what is unfolded");
    let service = rig.model.service.clone();
    rig.key(Key::Char('1'));
    rig.key(Key::Right);
    assert_ne!(rig.model.service, service, "elsewhere the arrows choose services");
}

#[test]
fn folding_a_list_makes_a_tree_of_it_and_the_list_comes_back_where_one_was() {
    let mut rig = Rig::on(fixture::canary());
    let list = shown(&rig);
    rig.key(Key::Char('3'));
    rig.key(Key::Down);
    rig.key(Key::Char('-'));
    assert_eq!((chosen(&rig).as_str(), rig.model.tree.on), ("node-2", true));
    rig.key(Key::Char('v'));
    assert_eq!(shown(&rig), list);
    assert_eq!(rig.model.instance_view().unwrap().host.as_str(), "node-2");
    rig.key(Key::Char('v'));
    assert!(shown(&rig).contains("+node-2"), "what was folded stays so");
}

#[test]
fn a_folded_group_counts_what_is_in_it_and_never_hides_that_something_is_wrong() {
    let mut rig = Rig::on(fixture::canary());
    run(&mut rig, "fold all");
    assert_eq!(shown(&rig), "+node-1 +node-2 +node-3");
    let tally = |rig: &Rig, n: usize| rig.model.group(n).unwrap().tally;
    assert_eq!(tally(&rig, 0), Tally { healthy: 3, candidates: 1, ..Tally::default() });
    rig.change(|s| {
        for i in s.instances.iter_mut().filter(|i| i.host.as_str() == "node-1") {
            match i.id.as_str() {
                "web-7f3a0b11-1" => i.health = HealthView::Unhealthy,
                "web-7f3a0b11-4" => i.state = "exited".into(),
                _ => i.health = HealthView::Unknown,
            }
        }
    });
    rig.model.settle();
    assert_eq!(tally(&rig, 0), Tally { failing: 2, unknown: 1, candidates: 1, ..Tally::default() });
    assert_eq!(tally(&rig, 2), Tally { healthy: 2, ..Tally::default() });
    run(&mut rig, "unfold node-3");
    assert_eq!(shown(&rig), format!("+node-1 +node-2 -node-3 {NODE_3}"));
    run(&mut rig, "unfold all");
    assert_eq!(rig.model.rows.len(), 11);
}

#[test]
fn a_filter_shows_what_it_finds_in_folded_groups_too_and_they_are_folded_again_after_it() {
    let mut rig = Rig::on(fixture::canary());
    run(&mut rig, "fold all");
    rig.key(Key::Char('/'));
    rig.typed("7f3a0b11-[14]");
    rig.key(Key::Enter);
    assert_eq!(shown(&rig), "-node-1 7f3a0b11-1 7f3a0b11-4");
    assert_eq!((rig.model.shown(), rig.model.in_scope), (2, 8), "headings are not counted");
    rig.key(Key::Char('-'));
    assert!(rig.notice().contains("a filter shows all"), "{}", rig.notice());
    rig.key(Key::Enter);
    assert!(shown(&rig).starts_with("-node-1"));
    rig.key(Key::Esc);
    assert_eq!(shown(&rig), "+node-1 +node-2 +node-3");
}

#[test]
fn instances_are_sorted_within_their_host() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('v'));
    run(&mut rig, "sort cpu");
    // The two that use the same stand as without an order.
    let node_1 = "7f3a0b11-4 9c1e0a77-1 7f3a0b11-1";
    assert!(shown(&rig).starts_with(&format!("-node-1 {node_1} -node-2 ")), "{}", shown(&rig));
}

#[test]
fn hosts_stand_under_their_services_where_all_are_shown_and_the_selection_goes_where_it_was_folded() {
    let mut rig = Rig::on(fixture::canary());
    rig.change(|s| {
        let other =
            InstanceView { id: "api-11112222-1".into(), service: "api".into(), ..s.instances[0].clone() };
        s.instances.insert(0, other);
    });
    rig.key(Key::Char('s'));
    rig.key(Key::Char('v'));
    assert!(
        shown(&rig).starts_with(&format!("-api -node-1 11112222-1 -web -node-1 {NODE_1}")),
        "{}",
        shown(&rig)
    );
    run(&mut rig, "fold api");
    assert!(shown(&rig).starts_with(&format!("+api -web -node-1 {NODE_1}")), "{}", shown(&rig));
    rig.key(Key::Char('G'));
    // The host, then out of it, then the service.
    rig.key(Key::Left);
    assert_eq!(chosen(&rig), "node-3");
    rig.key(Key::Left);
    assert_eq!(chosen(&rig), "web");
    rig.key(Key::Left);
    assert_eq!((chosen(&rig).as_str(), shown(&rig).as_str()), ("web", "+api +web"));
    // Who folds from elsewhere takes the selection along.
    run(&mut rig, "unfold all");
    rig.key(Key::Char('g'));
    (0..2).for_each(|_| drop(rig.key(Key::Down)));
    assert_eq!(rig.model.instance.as_ref().unwrap().as_str(), "api-11112222-1");
    run(&mut rig, "fold api");
    assert_eq!(chosen(&rig), "api");
    // A host that is gone takes nothing else with it.
    rig.change(|s| s.instances.retain(|i| i.service.as_str() != "api"));
    rig.model.settle();
    assert_eq!(chosen(&rig), "web");
}
