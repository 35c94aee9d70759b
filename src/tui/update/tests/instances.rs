//! Instances: sorted by what matters now, and looked at closely.

use super::*;
use crate::api::{HealthView, InstanceDetails};
use crate::tui::rows::{Column, Sort};

fn ids(rig: &Rig) -> Vec<String> {
    (0..rig.model.rows.len()).map(|n| rig.model.row(n).unwrap().id.to_string()).collect()
}

#[test]
fn the_worst_the_busiest_and_the_youngest_come_first_and_the_selection_stays() {
    let mut rig = Rig::on(fixture::canary());
    let usual = ids(&rig);
    rig.change(|s| {
        s.instances[2].health = HealthView::Unhealthy;
        s.instances[4].cpu_percent = Some(99.0);
        s.instances[5].cpu_percent = None;
        s.instances[6].restarts = 3;
    });
    let of = |rig: &Rig, n: usize| rig.model.snapshot.as_ref().unwrap().instances[n].id.to_string();
    rig.key(Key::Char('3'));
    rig.key(Key::Down);
    let chosen = rig.model.instance.clone();
    let mut sorted = |by| {
        while rig.model.sort.by != Some(by) {
            rig.key(Key::Char('o'));
        }
        assert_eq!(rig.model.instance, chosen);
        ids(&rig)
    };
    assert_eq!(sorted(Column::Health)[0], "web-7f3a0b11-3");
    let by_cpu = sorted(Column::Cpu);
    assert_eq!((by_cpu[0].as_str(), by_cpu[7].as_str()), ("web-7f3a0b11-5", "web-7f3a0b11-6"));
    assert_eq!(sorted(Column::Restarts)[0], of(&rig, 6));
    rig.key(Key::Char('o'));
    assert_eq!(rig.model.sort, Sort::default());
    assert_eq!(ids(&rig), usual, "after the last column as it was");
}

#[test]
fn a_figure_that_changes_moves_the_row_only_where_it_is_sorted_by() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char(':'));
    rig.typed("sort mem");
    rig.key(Key::Enter);
    assert_eq!(rig.model.sort.by, Some(Column::Memory));
    rig.change(|s| s.instances[0].memory_bytes = Some(1 << 40));
    rig.model.settle();
    assert_eq!(ids(&rig)[0], "web-7f3a0b11-1");
    rig.key(Key::Char(':'));
    rig.typed("reverse");
    rig.key(Key::Enter);
    assert_eq!(ids(&rig)[7], "web-7f3a0b11-1");
}

#[test]
fn enter_looks_closely_at_an_instance_and_again_when_it_was_started_again() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    let id = rig.model.instance.clone().unwrap();
    assert_eq!(rig.key(Key::Enter), [Cmd::Details { instance: id.clone() }]);
    let told = InstanceDetails { id: id.clone(), image: "shop/web:1.5.0".into(), ..Default::default() };
    rig.send(Msg::Details { instance: "another".into(), result: Ok(Box::default()) });
    let open = |rig: &Rig| match &rig.model.overlay {
        Overlay::Details(d) => d.told.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(open(&rig), None, "that was about another");
    rig.send(Msg::Details { instance: id.clone(), result: Ok(Box::new(told.clone())) });
    assert_eq!(open(&rig), Some(Ok(Box::new(told))));
    let at = |s: &mut Snapshot| s.instances.iter().position(|i| i.id == id).unwrap();
    assert_eq!(
        rig.change(|s| {
            let n = at(s);
            s.instances[n].probe_ms = Some(77);
        }),
        []
    );
    let again = rig.change(|s| {
        let n = at(s);
        s.instances[n].restarts = 1;
    });
    assert_eq!(again, [Cmd::Details { instance: id.clone() }]);
    // The fast way out and the verbs are there as well.
    rig.key(Key::Char('a'));
    assert!(rig.asks());
    rig.key(Key::Esc);
    rig.key(Key::Enter);
    assert!(matches!(rig.key(Key::Char('l'))[..], [Cmd::Follow { .. }]));
    assert!(rig.model.overlay == Overlay::None && rig.model.logs.is_some());
}

#[test]
fn enter_gives_other_panes_the_screen_and_z_every_pane() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('5'));
    assert_eq!(rig.key(Key::Enter), [Cmd::Journal { before: 90 }], "room for what was before");
    assert!(rig.model.zoom);
    rig.key(Key::Esc);
    rig.key(Key::Char('3'));
    rig.key(Key::Char('z'));
    assert!(rig.model.zoom && rig.model.overlay == Overlay::None);
}

#[test]
fn an_engine_that_does_not_answer_and_an_instance_that_is_gone_are_said() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    let id = rig.model.instance.clone().unwrap();
    rig.key(Key::Enter);
    let lost = ClientError::NoAnswer { what: "details".into(), why: "it took too long".into() };
    rig.send(Msg::Details { instance: id.clone(), result: Err(lost) });
    assert!(matches!(&rig.model.overlay, Overlay::Details(d) if d.told.as_ref().unwrap().is_err()));
    rig.change(|s| s.instances.retain(|i| i.id != id));
    rig.key(Key::Down);
    assert!(matches!(rig.model.overlay, Overlay::Details(_)));
    rig.key(Key::Esc);
    assert_eq!(rig.model.overlay, Overlay::None);
}

#[test]
fn what_is_selected_is_copied_and_that_is_said() {
    let mut rig = Rig::on(fixture::canary());
    rig.key(Key::Char('3'));
    let id = rig.model.instance.clone().unwrap().to_string();
    assert_eq!(rig.key(Key::Char('c')), [Cmd::Copy(id.clone())]);
    assert!(rig.notice().starts_with("copied") && rig.notice().ends_with(&id), "{}", rig.notice());
    rig.key(Key::Char('5'));
    rig.key(Key::Up);
    assert_eq!(rig.key(Key::Char('c')), [Cmd::Copy("12:00:11 web: promoted to 25% (bob)".into())]);
    rig.key(Key::Char('4'));
    rig.key(Key::Char('/'));
    rig.typed("fail");
    rig.key(Key::Enter);
    assert_eq!(rig.key(Key::Char('c')), [Cmd::Copy("12:04:30 node-3 web-7f3a0b11-6 FAIL 503 9ms".into())]);
    let cmds = rig.key(Key::Char('l'));
    let Some(Cmd::Follow { generation, .. }) = cmds.first() else { panic!("{cmds:?}") };
    assert_eq!(rig.key(Key::Char('c')), [], "no line yet");
    assert!(rig.notice().contains("nothing is selected"), "{}", rig.notice());
    let line = |n: usize| logs::line(format!("line {n}"));
    rig.send(Msg::Log { generation: *generation, lines: (0..9).map(line).collect() });
    rig.key(Key::Up);
    assert_eq!(rig.key(Key::Char('c')), [Cmd::Copy("line 7".into())]);
}

#[test]
fn figures_can_wait_and_whatever_else_changes_cannot() {
    let mut rig = Rig::on(fixture::canary());
    let urgent = |rig: &mut Rig, f: &dyn Fn(&mut Snapshot)| {
        let now = rig.model.snapshot.as_ref().unwrap();
        let mut next = (**now).clone();
        f(&mut next);
        let delta = Delta { seq: now.seq + 1, changes: now.changes_to(&next) };
        update(&mut rig.model, Msg::Drawn);
        update(&mut rig.model, Msg::Update(Update::Delta(delta)));
        assert!(rig.model.dirty, "either way it is drawn");
        rig.model.urgent
    };
    let figures: [&dyn Fn(&mut Snapshot); 4] = [
        &|s| s.instances[0].probe_ms = Some(91),
        &|s| (s.instances[1].cpu_percent, s.instances[1].memory_bytes) = (Some(77.0), Some(1)),
        &|s| s.services[1].revisions[0].traffic = None,
        &|s| s.services[1].rollout.as_mut().unwrap().gate_left_ms = Some(1),
    ];
    for (n, f) in figures.iter().enumerate() {
        assert!(!urgent(&mut rig, f), "figure {n}");
    }
    let changes: [&dyn Fn(&mut Snapshot); 7] = [
        &|s| s.instances[0].health = HealthView::Unhealthy,
        &|s| s.instances[0].probe_ms = Some(5),
        &|s| s.instances[1].state = "exited".into(),
        &|s| s.services[1].revisions[1].actual_weight = None,
        &|s| s.services[1].rollout.as_mut().unwrap().decision += 1,
        &|s| s.hosts[0].reachable = false,
        &|s| s.alarms.push("disk full".into()),
    ];
    for (n, f) in changes.iter().enumerate() {
        assert!(urgent(&mut rig, f), "change {n}");
    }
}
