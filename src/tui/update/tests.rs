mod abort;
mod filters;
mod instances;
mod journal;
mod logs;
mod mouse;
mod palette;
mod tree;

use super::*;
use crate::api::{API_VERSION, ApiError, Delta, EventView, Snapshot, VerbKind};
use crate::tui::dialog::QUIET_MS;
use crate::tui::filter::List;
use crate::tui::fixture;
use crate::tui::logs::{LOG_CHARS, LOG_LINES};
use crate::tui::model::Pane;

/// A cockpit without a terminal: time stands still unless a test moves it, and every step is drawn.
struct Rig {
    model: Model,
    now: u64,
}

impl Rig {
    fn on(snapshot: Snapshot) -> Self {
        let mut rig = Self { model: Model { name: "operator".into(), ..Model::default() }, now: 1_000 };
        rig.send(Msg::Resize(80, 24));
        rig.send(Msg::Update(Update::Snapshot(Box::new(snapshot))));
        rig
    }

    fn send(&mut self, msg: Msg) -> Vec<Cmd> {
        update(&mut self.model, Msg::Time { now_ms: self.now, wall_ms: fixture::WALL_MS + self.now });
        let cmds = update(&mut self.model, msg);
        update(&mut self.model, Msg::Drawn);
        cmds
    }

    fn wait(&mut self, ms: u64) -> &mut Self {
        self.now += ms;
        self
    }

    /// A key by a person: half a second after whatever came before.
    fn key(&mut self, key: Key) -> Vec<Cmd> {
        self.now += 500;
        self.send(Msg::Key(key))
    }

    fn typed(&mut self, text: &str) -> Vec<Cmd> {
        text.chars().flat_map(|c| self.key(Key::Char(c))).collect()
    }

    /// Keys in one breath, as an unbracketed paste brings them: nothing is drawn between them.
    fn burst(&mut self, text: &str) -> Vec<Cmd> {
        let mut cmds = Vec::new();
        for c in text.chars() {
            update(&mut self.model, Msg::Time { now_ms: self.now, wall_ms: self.now });
            cmds.extend(update(&mut self.model, Msg::Key(Key::Char(c))));
        }
        update(&mut self.model, Msg::Drawn);
        cmds
    }

    fn change(&mut self, f: impl FnOnce(&mut Snapshot)) -> Vec<Cmd> {
        let now = self.model.snapshot.as_ref().unwrap();
        let mut next = (**now).clone();
        f(&mut next);
        let delta = Delta { seq: now.seq + 1, changes: now.changes_to(&next) };
        self.send(Msg::Update(Update::Delta(delta)))
    }

    fn complaint(&self) -> Option<String> {
        match &self.model.overlay {
            Overlay::Dialog(d) => d.complaint.as_ref().map(ToString::to_string),
            _ => None,
        }
    }

    fn notice(&self) -> String {
        self.model.notice.as_ref().map(|n| n.text.to_string()).unwrap_or_default()
    }

    fn asks(&self) -> bool {
        matches!(self.model.overlay, Overlay::Dialog(_))
    }
}

/// The one verb in `cmds`: what, and on which decision.
fn sent(cmds: &[Cmd]) -> Option<(Verb, Option<u64>)> {
    match cmds {
        [Cmd::Send { verb, decision, service, .. }] => {
            assert_eq!(service.as_str(), "web");
            Some((verb.clone(), *decision))
        }
        _ => None,
    }
}

fn move_on(s: &mut Snapshot) {
    let web = s.services.iter_mut().find(|v| v.name.as_str() == "web").unwrap();
    let r = web.rollout.as_mut().unwrap();
    r.decision += 1;
    r.phase += 1;
}

#[test]
fn the_service_with_a_rollout_is_selected_at_first() {
    assert_eq!(Rig::on(fixture::canary()).model.service.unwrap().as_str(), "web");
}

#[test]
fn pause_is_one_key_and_carries_no_decision_and_resume_asks() {
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(sent(&rig.key(Key::Char(' '))), Some((Verb::Pause, None)));
    rig.change(|s| {
        let web = s.services.iter_mut().find(|v| v.name.as_str() == "web").unwrap();
        web.verbs = vec![VerbKind::Resume, VerbKind::Abort];
    });
    assert_eq!(rig.key(Key::Char(' ')), []);
    assert!(rig.asks());
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Resume, Some(40))));
}

#[test]
fn promote_carries_the_decision_of_the_moment_the_question_opened() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('p'));
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Promote { full: false }, Some(40))));
}

#[test]
fn enter_confirms_no_question() {
    for key in ['a', 'p', 'r'] {
        let mut rig = Rig::on(fixture::canary());
        rig.key(Key::Char(key));
        assert_eq!(rig.key(Key::Enter), [], "{key}");
        assert!(rig.asks());
    }
}

#[test]
fn a_risky_answer_that_comes_too_quickly_does_not_count() {
    let mut rig = Rig::on(fixture::canary());
    rig.send(Msg::Key(Key::Char('p')));
    assert_eq!(rig.wait(QUIET_MS - 1).send(Msg::Key(Key::Char('y'))), []);
    assert!(rig.complaint().unwrap().contains("too quickly"));
    // The key that was too quick starts the wait again.
    assert_eq!(rig.wait(QUIET_MS - 1).send(Msg::Key(Key::Char('y'))), []);
    assert!(sent(&rig.wait(QUIET_MS).send(Msg::Key(Key::Char('y')))).is_some());
}

#[test]
fn a_question_that_was_not_drawn_yet_is_not_answered() {
    let mut rig = Rig::on(fixture::canary());
    update(&mut rig.model, Msg::Key(Key::Char('p')));
    rig.now += 10_000;
    update(&mut rig.model, Msg::Time { now_ms: rig.now, wall_ms: 0 });
    assert_eq!(update(&mut rig.model, Msg::Key(Key::Char('y'))), []);
}

#[test]
fn pasted_letters_do_nothing_risky_bracketed_or_not() {
    for text in ["promote", "py", "Py\ny", "ryry", "dy", "pypypypy"] {
        let mut rig = Rig::on(fixture::canary());
        assert_eq!(rig.burst(text), [], "{text}");
        let mut rig = Rig::on(fixture::canary());
        assert_eq!(rig.send(Msg::Paste(text.into())), []);
        assert!(!rig.asks() && rig.notice().contains("paste was ignored"), "{text}");
        rig.key(Key::Char('p'));
        assert_eq!(rig.wait(500).send(Msg::Paste("y".into())), []);
        assert!(rig.asks());
    }
}

#[test]
fn a_split_escape_sequence_does_nothing() {
    for end in ["[A", "[B", "[C", "[D", "OA", "OH", "[F", "[H", "[5~", "[1;5A", "OP", "[200~"] {
        let mut rig = Rig::on(fixture::canary());
        let mut cmds = rig.key(Key::Esc);
        cmds.extend(rig.typed(end));
        assert_eq!(cmds, [], "{end}");
        let opened = rig.asks();
        assert_eq!(opened, end == "OP", "{end}: at most a question");
    }
}

#[test]
fn a_split_arrow_in_a_question_closes_it_and_no_more() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('p'));
    let mut cmds = rig.key(Key::Esc);
    cmds.extend(rig.typed("[A"));
    assert_eq!(cmds, []);
    assert!(!rig.asks());
}

#[test]
fn a_question_about_what_is_no_longer_so_is_not_sent() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('p'));
    rig.change(move_on);
    assert_eq!(rig.key(Key::Char('y')), []);
    assert!(rig.complaint().unwrap().contains("changed"));
}

#[test]
fn a_stale_refusal_says_what_was_seen_and_what_is() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('p'));
    let cmds = rig.key(Key::Char('y'));
    let Some(Cmd::Send { id, .. }) = cmds.first() else { panic!("{cmds:?}") };
    rig.change(move_on);
    let refusal = ApiError { code: ErrorCode::Stale, message: "bob was first".into(), hint: None };
    rig.send(Msg::Answered { id: *id, result: Err(ClientError::Refused(refusal)) });
    let text = rig.notice();
    for part in
        ["NOT done", "bob was first", "you saw: canary to 1.5.0, running, phase 3/5 (25%)", "phase 4/5 (50%)"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    rig.wait(60_000).send(Msg::Tick);
    assert!(!rig.notice().is_empty(), "a refusal stays until the next key");
}

#[test]
fn no_answer_is_never_reported_as_not_done() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('a'));
    let cmds = rig.key(Key::Char('y'));
    let Some(Cmd::Send { id, .. }) = cmds.first() else { panic!("{cmds:?}") };
    let late = ClientError::NoAnswer { what: "abort".into(), why: "nothing for 15 s".into() };
    rig.send(Msg::Answered { id: *id, result: Err(late) });
    assert!(
        rig.notice().contains("may or may not") && !rig.notice().contains("NOT done"),
        "{}",
        rig.notice()
    );
}

#[test]
fn production_asks_for_the_name_before_everything_that_goes_all_the_way() {
    let mut rig = Rig::on(fixture::production());
    rig.key(Key::Char('P'));
    assert_eq!(rig.typed("y"), []);
    assert_eq!(rig.key(Key::Enter), []);
    assert!(rig.complaint().unwrap().contains("type web"));
    rig.key(Key::Backspace);
    rig.typed("web");
    assert_eq!(rig.send(Msg::Key(Key::Enter)), [], "an Enter in the same breath as the name is a paste");
    assert_eq!(sent(&rig.key(Key::Enter)), Some((Verb::Promote { full: true }, Some(40))));
}

#[test]
fn deploy_is_version_then_plan_then_yes_on_the_plans_decision_and_hash() {
    let mut rig = Rig::on(fixture::finished());
    rig.model.service = Some("web".into());
    rig.key(Key::Char('d'));
    let cmds = rig.key(Key::Enter);
    assert_eq!(cmds, [Cmd::Plan { service: "web".into(), version: "1.6.0".into() }]);
    let planned = Planned { plan: fixture::plan(), fleet_hash: Some("abc".into()) };
    rig.send(Msg::Planned { service: "web".into(), version: "1.6.0".into(), result: Ok(Box::new(planned)) });
    assert_eq!(rig.key(Key::Enter), []);
    let cmds = rig.key(Key::Char('y'));
    assert_eq!(sent(&cmds), Some((Verb::Deploy { version: "1.6.0".into() }, Some(41))));
    assert!(matches!(&cmds[..], [Cmd::Send { fleet_hash: Some(h), .. }] if h == "abc"));
}

#[test]
fn a_version_is_typed_pasted_or_chosen_and_checked() {
    let mut rig = Rig::on(fixture::finished());
    rig.model.service = Some("web".into());
    rig.key(Key::Char('d'));
    rig.typed("1.4");
    rig.key(Key::Down);
    rig.key(Key::Down);
    assert_eq!(rig.key(Key::Enter), [Cmd::Plan { service: "web".into(), version: "1.4.1".into() }]);
    rig.key(Key::Esc);
    rig.key(Key::Char('d'));
    rig.send(Msg::Paste("1.7.0-rc.1\nrm -rf /".into()));
    assert_eq!(rig.key(Key::Enter), [Cmd::Plan { service: "web".into(), version: "1.7.0-rc.1".into() }]);
    rig.key(Key::Esc);
    rig.key(Key::Char('d'));
    rig.typed("../x");
    assert_eq!(rig.key(Key::Enter), []);
    assert!(rig.complaint().unwrap().contains("a version has"));
}

#[test]
fn a_plan_that_comes_after_the_question_was_left_opens_nothing() {
    let mut rig = Rig::on(fixture::finished());
    rig.model.service = Some("web".into());
    rig.key(Key::Char('d'));
    rig.key(Key::Enter);
    rig.key(Key::Esc);
    let planned = Planned { plan: fixture::plan(), fleet_hash: None };
    rig.send(Msg::Planned { service: "web".into(), version: "1.6.0".into(), result: Ok(Box::new(planned)) });
    assert!(!rig.asks());
}

#[test]
fn a_lost_controller_turns_every_verb_off_and_says_why_until_it_is_back() {
    let mut rig = Rig::on(fixture::canary());
    rig.wait(9_000).send(Msg::Lost("silence".into()));
    assert_eq!(rig.model.link, Link::Lost { since_ms: 1_000, why: "silence".into() });
    for key in ['a', 'p', 'P', ' ', 'r', 'd'] {
        assert_eq!(rig.key(Key::Char(key)), [], "{key}");
        assert!(!rig.asks() && rig.notice().contains("lost"), "{key}: {}", rig.notice());
    }
    rig.send(Msg::Update(Update::Snapshot(Box::new(fixture::canary()))));
    assert!(rig.model.live() && rig.notice().contains("back"));
    rig.key(Key::Char('a'));
    assert!(rig.asks());
}

#[test]
fn a_question_open_while_the_controller_is_lost_is_not_sent() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('a'));
    rig.send(Msg::Lost("silence".into()));
    assert_eq!(rig.key(Key::Char('y')), []);
    assert!(rig.complaint().unwrap().contains("lost"));
}

#[test]
fn read_only_and_another_api_version_stop_all_but_what_is_allowed() {
    for open in ["", "?", "l", ":"] {
        let mut rig = Rig::on(fixture::canary());
        rig.model.read_only = true;
        rig.typed(open);
        for key in ['a', 'p', 'P', 'r', 't', 'd', ' ', 'y'] {
            assert_eq!(rig.key(Key::Char(key)), [], "{key} after {open:?}");
            assert!(!rig.asks(), "{key} after {open:?}");
        }
    }
    let mut rig = Rig::on(fixture::canary());
    rig.model.read_only = true;
    rig.key(Key::Char('a'));
    assert!(rig.notice().contains("READ-ONLY"), "{}", rig.notice());
    assert_eq!(rig.key(Key::Char('q')), [Cmd::Leave]);

    let mut other = fixture::canary();
    other.controller.api = API_VERSION + 1;
    let mut rig = Rig::on(other);
    rig.key(Key::Char('p'));
    assert!(!rig.asks() && rig.notice().contains("API"), "{}", rig.notice());
    rig.key(Key::Char('a'));
    assert!(rig.asks());
}

#[test]
fn a_verb_that_is_not_possible_says_why() {
    let mut rig = Rig::on(fixture::finished());
    rig.model.service = Some("web".into());
    rig.key(Key::Char('p'));
    assert_eq!(rig.notice(), "nothing to promote: web has no rollout under way");
    let mut rig = Rig::on(fixture::followed());
    rig.key(Key::Char('d'));
    assert_eq!(rig.notice(), "web-7 is aborting: wait until it has ended");
}

#[test]
fn q_detaches_from_the_panes_and_ctrl_c_from_anywhere() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('p'));
    assert_eq!(rig.key(Key::Char('q')), [], "in a question q is no");
    assert!(!rig.asks());
    assert_eq!(rig.key(Key::Char('q')), [Cmd::Leave]);
    for open in ['p', '?', '/', 'l'] {
        let mut rig = Rig::on(fixture::canary());
        rig.key(Key::Char(open));
        assert_eq!(rig.key(Key::Ctrl('c')), [Cmd::Leave], "{open}");
    }
}

#[test]
fn the_filter_takes_letters_that_are_verbs_elsewhere_and_can_be_turned_round() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('/'));
    assert_eq!(rig.typed("9c1e"), []);
    assert_eq!(rig.model.rows.len(), 2);
    assert_eq!(rig.key(Key::Enter), []);
    assert_eq!(rig.model.filters.of(List::Fleet).text(), "9c1e");
    rig.key(Key::Char('/'));
    (0..4).for_each(|_| drop(rig.key(Key::Backspace)));
    rig.typed("!9c1e");
    assert_eq!(rig.model.rows.len(), 6);
    rig.key(Key::Esc);
    assert_eq!(rig.model.rows.len(), 8);
}

#[test]
fn the_selection_follows_the_instance_and_not_the_line() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    (0..3).for_each(|_| drop(rig.key(Key::Down)));
    let chosen = rig.model.instance.clone().unwrap();
    let first = rig.model.row(0).unwrap().id.clone();
    rig.change(|s| s.instances.retain(|i| i.id != first));
    rig.key(Key::Char('3'));
    assert_eq!(rig.model.instance, Some(chosen));
    assert_eq!(rig.model.cursor, 2);
}

#[test]
fn the_candidate_s_instances_come_first() {
    let rig = Rig::on(fixture::canary());
    let versions: Vec<_> = (0..8).map(|n| rig.model.row(n).unwrap().version.to_string()).collect();
    assert_eq!(versions, ["1.5.0", "1.5.0", "1.4.2", "1.4.2", "1.4.2", "1.4.2", "1.4.2", "1.4.2"]);
}

#[test]
fn a_flood_of_log_lines_is_bounded_and_counted() {
    let mut rig = Rig::on(fixture::canary());
    let cmds = rig.key(Key::Char('l'));
    let Some(Cmd::Follow { generation, .. }) = cmds.first() else { panic!("{cmds:?}") };
    let line = logs::line("x".repeat(90_000));
    for _ in 0..30 {
        rig.send(Msg::Log { generation: *generation, lines: vec![line.clone(); 100] });
    }
    rig.send(Msg::Log { generation: generation + 1, lines: vec![line] });
    let logs = rig.model.logs.as_ref().unwrap();
    assert_eq!((logs.lines.len(), logs.dropped), (LOG_LINES, 1000));
    assert!(logs.lines.iter().all(|l| l.text.as_str().chars().count() <= LOG_CHARS + 1));
}

#[test]
fn scrolled_back_logs_stand_still_while_lines_come() {
    let mut rig = Rig::on(fixture::canary());
    let cmds = rig.key(Key::Char('l'));
    let Some(Cmd::Follow { generation, .. }) = cmds.first() else { panic!("{cmds:?}") };
    let line = |n: usize| logs::line(n);
    rig.send(Msg::Log { generation: *generation, lines: (0..100).map(line).collect() });
    rig.key(Key::PageUp);
    let logs = rig.model.logs.as_ref().unwrap();
    let last = logs.lines[logs.lines.len() - 1 - logs.back].clone();
    rig.send(Msg::Log { generation: *generation, lines: (100..150).map(line).collect() });
    let logs = rig.model.logs.as_ref().unwrap();
    assert_eq!(logs.lines[logs.lines.len() - 1 - logs.back], last);
    assert_eq!(rig.key(Key::Esc), [Cmd::Unfollow]);
}

#[test]
fn a_gap_in_the_deltas_asks_for_a_new_snapshot() {
    let mut rig = Rig::on(fixture::canary());
    let gap = Delta { seq: 999, changes: vec![Change::Event(EventView::default())] };
    assert_eq!(rig.send(Msg::Update(Update::Delta(gap))), [Cmd::Resubscribe]);
}

#[test]
fn a_second_in_which_nothing_visible_changes_draws_nothing() {
    let mut still = fixture::finished();
    still.instances.clear();
    // What is measured makes a chart grow.
    still.services.iter_mut().flat_map(|s| &mut s.revisions).for_each(|v| v.traffic = None);
    let mut rig = Rig::on(still);
    rig.send(Msg::Tick);
    for _ in 0..100 {
        rig.now += 1_000;
        update(&mut rig.model, Msg::Time { now_ms: rig.now, wall_ms: fixture::WALL_MS + rig.now });
        update(&mut rig.model, Msg::Tick);
        assert!(!rig.model.dirty);
    }
    let mut rig = Rig::on(fixture::canary());
    rig.send(Msg::Tick);
    rig.now += 1_000;
    update(&mut rig.model, Msg::Time { now_ms: rig.now, wall_ms: fixture::WALL_MS + rig.now });
    update(&mut rig.model, Msg::Tick);
    assert!(rig.model.dirty, "a countdown is in sight");
}

#[test]
fn the_countdown_runs_from_the_view_and_stands_while_lost() {
    let mut rig = Rig::on(fixture::canary());
    let left = |rig: &Rig| rig.model.gate_left(rig.model.service_view().unwrap());
    rig.wait(72_000).send(Msg::Tick);
    assert_eq!(left(&rig), Some(300_000));
    rig.send(Msg::Update(Update::Delta(Delta { seq: 101, changes: vec![] })));
    rig.send(Msg::Lost("x".into()));
    rig.wait(60_000).send(Msg::Tick);
    assert_eq!(left(&rig), Some(300_000));
}

#[test]
fn panes_are_reached_by_number_and_tab() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('4'));
    assert_eq!(rig.model.focus, Pane::Health);
    rig.key(Key::Tab);
    rig.key(Key::Tab);
    assert_eq!(rig.model.focus, Pane::Services);
    rig.key(Key::BackTab);
    assert_eq!(rig.model.focus, Pane::Events);
    rig.key(Key::Enter);
    assert!(rig.model.zoom);
    rig.key(Key::Esc);
    assert!(!rig.model.zoom);
}

#[test]
fn an_open_log_is_followed_again_when_the_controller_is_back() {
    let mut rig = Rig::on(fixture::canary());
    let cmds = rig.key(Key::Char('l'));
    let Some(Cmd::Follow { generation, whose, tail }) = cmds.first() else { panic!("{cmds:?}") };
    rig.send(Msg::Lost("x".into()));
    rig.send(Msg::LogEnd { generation: *generation, why: "x".into() });
    let cmds = rig.send(Msg::Update(Update::Snapshot(Box::new(fixture::canary()))));
    assert_eq!(cmds, [Cmd::Follow { generation: generation + 1, whose: whose.clone(), tail: *tail }]);
}

#[test]
fn a_change_sorts_only_when_a_row_may_move_and_counts_always() {
    let mut rig = Rig::on(fixture::canary());
    let first = |rig: &Rig| rig.model.row(0).unwrap().clone();
    let id = first(&rig).id;
    let edit = |rig: &mut Rig, f: &dyn Fn(&mut crate::api::InstanceView)| {
        rig.change(|s| s.instances.iter_mut().filter(|i| i.id == id).for_each(f));
    };
    edit(&mut rig, &|i| i.health = crate::api::HealthView::Unhealthy);
    assert!(!rig.model.rows_stale);
    rig.model.settle();
    assert_eq!(rig.model.counts.unhealthy, 1);
    edit(&mut rig, &|i| i.role = crate::api::Role::Old);
    assert!(rig.model.rows_stale);
    rig.model.settle();
    assert_ne!(first(&rig).id, id);
}

#[test]
fn retry_is_offered_only_where_it_can_do_something_and_asks() {
    let mut rig = Rig::on(fixture::canary());
    assert_eq!(rig.key(Key::Char('t')), []);
    assert!(!rig.asks() && rig.notice().contains("no host of web-7 is held back"), "{}", rig.notice());
    let mut rig = Rig::on(fixture::held());
    assert_eq!(rig.key(Key::Char('t')), []);
    assert!(rig.asks());
    assert_eq!(rig.key(Key::Enter), [], "Enter confirms nothing");
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Retry { host: None }, Some(40))));
}

#[test]
fn retry_after_an_abort_is_a_deployment_with_its_plan() {
    let mut s = fixture::canary();
    let web = s.services.iter_mut().find(|v| v.name.as_str() == "web").unwrap();
    web.verbs = vec![VerbKind::Deploy, VerbKind::Retry];
    web.rollout.as_mut().unwrap().status = crate::api::RolloutStatus::Aborted;
    let mut rig = Rig::on(s);
    rig.model.service = Some("web".into());
    let asked = rig.key(Key::Char('t'));
    assert_eq!(asked, [Cmd::Plan { service: "web".into(), version: "1.5.0".into() }]);
    let planned = Planned { plan: fixture::plan(), fleet_hash: Some("abc".into()) };
    rig.send(Msg::Planned { service: "web".into(), version: "1.5.0".into(), result: Ok(Box::new(planned)) });
    assert!(rig.asks());
    let (verb, decision) = sent(&rig.key(Key::Char('y'))).unwrap();
    assert!(matches!(verb, Verb::Deploy { .. }) && decision == Some(41));
}

#[test]
fn going_back_in_mid_rollout_is_everything_or_one_host_the_selected_one_first() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    rig.key(Key::Down);
    assert_eq!(rig.model.instance_view().unwrap().host.as_str(), "node-2");
    rig.key(Key::Char('r'));
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Rollback { to: None, host: None }, Some(40))));
    let hosts = ["node-2", "node-1", "node-3"];
    for (downs, host) in [(1, 0), (2, 1), (3, 2), (9, 2)] {
        rig.key(Key::Char('r'));
        for _ in 0..downs {
            rig.key(Key::Down);
        }
        let verb = Verb::Rollback { to: None, host: Some(hosts[host].into()) };
        assert_eq!(sent(&rig.key(Key::Char('y'))), Some((verb, Some(40))), "{downs} down");
    }
    rig.key(Key::Char('r'));
    rig.key(Key::Down);
    rig.key(Key::Up);
    rig.key(Key::Up);
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Rollback { to: None, host: None }, Some(40))));
}

#[test]
fn a_host_that_is_held_already_is_no_choice_and_nor_is_one_without_a_rollout() {
    let mut rig = Rig::on(fixture::held());
    rig.key(Key::Char('r'));
    for _ in 0..9 {
        rig.key(Key::Down);
        let Overlay::Dialog(d) = &rig.model.overlay else { panic!("closed") };
        assert_ne!(d.ask, Ask::Rollback { host: Some("node-2".into()) });
    }
    let mut rig = Rig::on(fixture::finished());
    rig.model.service = Some("web".into());
    rig.key(Key::Char('r'));
    rig.key(Key::Down);
    assert_eq!(sent(&rig.key(Key::Char('y'))), Some((Verb::Rollback { to: None, host: None }, Some(41))));
}

#[test]
fn what_is_no_longer_so_refuses_retry_but_going_back_needs_only_the_rollout_and_abort_nothing() {
    fn another(s: &mut Snapshot) {
        move_on(s);
        s.services[1].rollout.as_mut().unwrap().id = "web-8".into();
    }
    fn held(s: &mut Snapshot) {
        move_on(s);
        s.services[1].rollout.as_mut().unwrap().held.push("node-1".into());
    }
    type Change = fn(&mut Snapshot);
    let cases: [(&str, Change, bool); 9] = [
        ("t", move_on, true),
        ("p", move_on, true),
        ("r", move_on, false),
        ("rj", move_on, false),
        ("r", another, true),
        ("rj", another, true),
        ("rj", held, true),
        ("a", move_on, false),
        ("a", another, false),
    ];
    for (keys, change, stale) in cases {
        let mut rig = Rig::on(fixture::held());
        for c in keys.chars() {
            rig.key(if c == 'j' { Key::Down } else { Key::Char(c) });
        }
        rig.change(change);
        let cmds = rig.key(Key::Char('y'));
        assert_eq!(cmds.is_empty(), stale, "{keys}");
        assert_eq!(rig.complaint().is_some_and(|c| c.contains("it has changed")), stale, "{keys}");
    }
}

#[test]
fn pasted_letters_neither_retry_nor_hold_a_host() {
    for text in ["ty", "tyty", "ry", "t\ny", "retry", "dy"] {
        let mut rig = Rig::on(fixture::held());
        assert_eq!(rig.burst(text), [], "{text}");
        let mut rig = Rig::on(fixture::held());
        assert_eq!(rig.send(Msg::Paste(text.into())), []);
        assert!(!rig.asks(), "{text}");
        rig.key(Key::Char('r'));
        rig.key(Key::Down);
        assert_eq!(rig.wait(500).send(Msg::Paste("y".into())), []);
        assert!(rig.asks());
    }
}

#[test]
fn a_deployment_in_mid_rollout_goes_through_version_and_plan() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('d'));
    assert!(rig.asks());
    rig.typed("1.6.0");
    assert_eq!(rig.key(Key::Enter), [Cmd::Plan { service: "web".into(), version: "1.6.0".into() }]);
}

#[test]
fn a_second_in_which_a_place_stays_empty_is_drawn() {
    let mut rig = Rig::on(fixture::empty_place());
    rig.send(Msg::Tick);
    update(&mut rig.model, Msg::Time { now_ms: rig.now + 1000, wall_ms: fixture::WALL_MS + rig.now + 1000 });
    update(&mut rig.model, Msg::Tick);
    assert!(rig.model.dirty);
}
