//! What `status` and whoever follows a rollout say beyond phase and shares: hosts held back, empty places and how long
//! they were, what follows, and the table of an A/B release.

use crate::api::{RolloutView, ServiceView};
use crate::controller::clock::utc;
use crate::text::Safe;

/// Downtimes that are listed one by one.
const LISTED: usize = 12;

/// Measured to the millisecond, shown to a tenth of a second.
fn seconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms}ms") } else { format!("{:.1}s", ms as f64 / 1000.0) }
}

fn names(of: &[Safe]) -> String {
    of.iter().map(Safe::as_str).collect::<Vec<_>>().join(", ")
}

/// What stands out of a rollout under way. Nothing in it changes without news.
pub(super) fn notable(service: &ServiceView, r: &RolloutView) -> Vec<String> {
    let mut out = Vec::new();
    let (name, stable) = (&service.name, r.from.as_ref().map_or("nothing", |v| v.as_str()));
    for e in &r.empty {
        out.push(format!(
            "EMPTY: {} since {}: {} has left, what replaces it does not serve yet",
            e.host,
            utc(e.since_ms),
            e.instance
        ));
    }
    if !r.held.is_empty() {
        out.push(format!(
            "held back: {} on {stable}; it cannot end before 'pilothouse retry {name}' (it takes part again) or 'pilothouse abort {name}' (all go back)",
            names(&r.held)
        ));
    }
    if let Some(next) = &service.next {
        out.push(format!("next: {next} follows by itself once {stable} serves everything"));
    }
    if !r.testers.is_empty() {
        out.push(format!("{} is reached, whatever its share, with: {}", r.to, names(&r.testers)));
    }
    out
}

/// How long places were empty.
pub(super) fn downtimes(r: &RolloutView) -> Vec<String> {
    let each = r.downtimes.iter().take(LISTED);
    let mut out: Vec<String> = each
        .map(|d| format!("downtime: the place of {} was empty for {}", d.instance, seconds(d.ms)))
        .collect();
    if let Some(longest) = r.downtimes.iter().map(|d| d.ms).max().filter(|_| r.downtimes.len() > LISTED) {
        let more = r.downtimes.len() - LISTED;
        out.push(format!("downtime: {more} more; the longest of all was {}", seconds(longest)));
    }
    out
}

/// The table of an A/B release, and what it shows; nothing when nothing was compared.
pub(super) fn comparison(r: &RolloutView) -> Vec<String> {
    let Some(c) = &r.comparison else { return Vec::new() };
    let versions = format!(
        "compared since {}: stable {}, candidate {}",
        utc(c.since_ms),
        c.stable.version,
        c.candidate.version
    );
    let [head, stable, candidate] = c.table();
    vec![versions, head, stable, candidate, c.verdict()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ComparisonView, DowntimeView, EmptyView, MeasuredView};

    #[test]
    fn what_stands_out_is_said_with_what_to_do() {
        let service =
            ServiceView { name: "web".into(), next: Some("1.6.0".into()), ..ServiceView::default() };
        let r = RolloutView {
            from: Some("1.4.2".into()),
            to: "1.5.0".into(),
            held: vec!["node-2".into(), "node-3".into()],
            empty: vec![EmptyView {
                host: "node-1".into(),
                instance: "web-7f3a0b11-1".into(),
                since_ms: 1_772_366_671_000,
            }],
            testers: vec!["header X-Preview".into()],
            ..RolloutView::default()
        };
        insta::assert_snapshot!(notable(&service, &r).join("\n"));
        assert!(notable(&ServiceView::default(), &RolloutView::default()).is_empty());
    }

    #[test]
    fn downtimes_are_listed_as_long_as_that_helps() {
        let r = |n: u64| RolloutView {
            downtimes: (1..=n)
                .map(|k| DowntimeView { instance: format!("web-9c1e0a77-{k}").into(), ms: k * 100 })
                .collect(),
            ..RolloutView::default()
        };
        assert_eq!(downtimes(&r(1)), ["downtime: the place of web-9c1e0a77-1 was empty for 100ms"]);
        let many = downtimes(&r(30));
        assert_eq!((many.len(), many[12].as_str()), (13, "downtime: 18 more; the longest of all was 3.0s"));
    }

    #[test]
    fn the_comparison_is_the_table_and_what_it_shows() {
        let m = |version: &str, failed, requests| MeasuredView {
            version: version.into(),
            requests,
            failed,
            p95_ms: None,
        };
        let c = ComparisonView {
            since_ms: 1_772_366_671_000,
            over: true,
            stable: m("1.4.2", 3, 9_120),
            candidate: m("1.5.0", 12, 240),
        };
        let r = RolloutView { comparison: Some(c), ..RolloutView::default() };
        insta::assert_snapshot!(comparison(&r).join("\n"));
        assert!(comparison(&RolloutView::default()).is_empty());
    }
}
