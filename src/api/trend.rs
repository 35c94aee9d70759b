//! What the proxies measured over the last minutes, per revision: a point for each ten seconds, because that is how far
//! each measurement looks back. The controller keeps it for whoever begins to watch, and each client goes on with it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{RevisionView, ServiceView};
use crate::text::Safe;

/// The time of one point, in milliseconds.
pub const STEP_MS: u64 = 10_000;
/// Points kept of each revision: twenty minutes.
pub const POINTS: usize = 120;

/// What was measured within one step. On the wire a list of four, as there are many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Row", into = "Row")]
pub struct Point {
    /// Which step of the wall clock: the same for everybody who looks.
    pub step: u64,
    /// Requests a second, as measured last.
    pub rate: f32,
    /// Failures in per cent, the most.
    pub errors: f32,
    /// Response time in milliseconds, the longest: the 95th percentile, or the mean where there is no other.
    pub time: Option<f32>,
}

type Row = (u64, f32, f32, Option<f32>);

impl From<Row> for Point {
    fn from((step, rate, errors, time): Row) -> Self {
        Self { step, rate, errors, time }
    }
}

impl From<Point> for Row {
    fn from(p: Point) -> Self {
        (p.step, p.rate, p.errors, p.time)
    }
}

/// The points of every revision (by its id) of every service (by its name), oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trends {
    services: BTreeMap<Safe, BTreeMap<Safe, VecDeque<Point>>>,
}

/// The step that a moment of the wall clock is in.
#[must_use]
pub fn step(wall_ms: u64) -> u64 {
    wall_ms / STEP_MS
}

impl Trends {
    /// Takes in what a service shows now. Revisions that it no longer has are forgotten.
    pub fn record(&mut self, wall_ms: u64, service: &ServiceView) {
        let known = self.services.entry(service.name.clone()).or_default();
        known.retain(|id, _| service.revisions.iter().any(|v| v.revision.id == *id));
        for v in &service.revisions {
            let Some(now) = point(wall_ms, v) else { continue };
            if !known.contains_key(&v.revision.id) {
                known.insert(v.revision.id.clone(), VecDeque::with_capacity(8));
            }
            let Some(points) = known.get_mut(&v.revision.id) else { continue };
            // The clock was set back, or a replay is played again from an earlier place.
            while points.back().is_some_and(|p| p.step > now.step) {
                points.pop_back();
            }
            match points.back_mut().filter(|p| p.step == now.step) {
                Some(p) => {
                    *p = Point {
                        errors: p.errors.max(now.errors),
                        time: p.time.map_or(now.time, |t| Some(now.time.map_or(t, |n| t.max(n)))),
                        ..now
                    };
                }
                None => points.push_back(now),
            }
            if points.len() > POINTS {
                points.pop_front();
            }
        }
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Takes over what another one has and this one has not.
    pub fn merge(&mut self, other: Self) {
        for (service, revisions) in other.services {
            let known = self.services.entry(service).or_default();
            for (id, points) in revisions {
                let mine = known.remove(&id).unwrap_or_default();
                let all: BTreeMap<u64, Point> = points.into_iter().chain(mine).map(|p| (p.step, p)).collect();
                let over = all.len().saturating_sub(POINTS);
                known.insert(id, all.into_values().skip(over).collect());
            }
        }
    }

    /// Forgets the services that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(&Safe) -> bool) {
        self.services.retain(|name, _| keep(name));
    }

    /// The points of a revision, oldest first; `None` when nothing was ever measured.
    #[must_use]
    pub fn of(&self, service: &Safe, revision: &Safe) -> Option<&VecDeque<Point>> {
        self.services.get(service)?.get(revision)
    }
}

fn point(wall_ms: u64, v: &RevisionView) -> Option<Point> {
    let t = v.traffic?;
    let finite = |x: f32| if x.is_finite() { x.max(0.0) } else { 0.0 };
    Some(Point {
        step: step(wall_ms),
        rate: finite(t.rate),
        errors: finite(t.error_percent),
        time: t.p95_ms.or(t.mean_ms).map(finite),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RevisionRef, TrafficView};

    /// `web` with two revisions that fail alike.
    fn service(error_percent: f32) -> ServiceView {
        let traffic =
            Some(TrafficView { rate: 412.0, error_percent, p95_ms: Some(38.0), ..TrafficView::default() });
        let view = |id: &str| RevisionView {
            revision: RevisionRef { id: id.into(), ..RevisionRef::default() },
            traffic,
            ..RevisionView::default()
        };
        ServiceView {
            name: "web".into(),
            revisions: vec![view("7f3a0b11"), view("9c1e0a77")],
            ..ServiceView::default()
        }
    }

    fn steps(trends: &Trends) -> Vec<u64> {
        let points = trends.of(&"web".into(), &"7f3a0b11".into());
        points.into_iter().flatten().map(|p| p.step).collect()
    }

    #[test]
    fn a_step_keeps_the_worst_of_its_seconds() {
        let mut trends = Trends::default();
        for (at, errors) in [(0, 0.5), (1_000, 7.0), (2_000, 0.1), (9_999, f32::NAN), (10_000, 0.2)] {
            trends.record(at, &service(errors));
        }
        let points = trends.of(&"web".into(), &"7f3a0b11".into()).unwrap();
        assert_eq!(points.iter().map(|p| p.errors).collect::<Vec<_>>(), [7.0, 0.2]);
    }

    #[test]
    fn the_past_is_bounded_gaps_stay_gaps_and_what_is_gone_is_forgotten() {
        let mut trends = Trends::default();
        for n in 0..500 {
            trends.record(n * STEP_MS, &service(0.0));
        }
        assert_eq!(steps(&trends).len(), POINTS);
        assert_eq!(steps(&trends).last(), Some(&499));
        trends.record(520 * STEP_MS, &service(0.0));
        assert_eq!(steps(&trends).iter().rev().take(2).collect::<Vec<_>>(), [&520, &499]);
        // Back to an earlier place.
        trends.record(450 * STEP_MS, &service(0.0));
        assert_eq!(steps(&trends).last(), Some(&450));
        let mut bare = service(0.0);
        bare.revisions.remove(0);
        trends.record(451 * STEP_MS, &bare);
        assert!(trends.of(&"web".into(), &"7f3a0b11".into()).is_none());
        assert!(trends.of(&"web".into(), &"9c1e0a77".into()).is_some());
        trends.retain(|_| false);
        assert!(trends.of(&"web".into(), &"9c1e0a77".into()).is_none());
    }

    #[test]
    fn who_begins_to_watch_goes_on_with_what_the_controller_has() {
        let record = |steps: std::ops::Range<u64>, errors| {
            let mut trends = Trends::default();
            steps.for_each(|n| trends.record(n * STEP_MS, &service(errors)));
            trends
        };
        let theirs = record(0..30, 1.0);
        let json = serde_json::to_string(&theirs).unwrap();
        assert!(json.contains("\"7f3a0b11\":[[0,412.0,1.0,38.0],[1,"), "{json}");
        let mut ours = record(28..32, 2.0);
        ours.merge(serde_json::from_str(&json).unwrap());
        assert_eq!(steps(&ours), (0..32).collect::<Vec<_>>());
        let errors = |n: usize| ours.of(&"web".into(), &"7f3a0b11".into()).unwrap()[n].errors;
        assert_eq!((errors(27), errors(28)), (1.0, 2.0), "what was seen here counts");
        ours.merge(record(1_000..1_000 + POINTS as u64, 1.0));
        assert_eq!(steps(&ours).len(), POINTS);
    }

    #[test]
    fn where_nobody_counts_there_is_no_point() {
        let mut trends = Trends::default();
        let mut web = service(0.0);
        web.revisions.iter_mut().for_each(|v| v.traffic = None);
        trends.record(0, &web);
        assert!(trends.of(&"web".into(), &"7f3a0b11".into()).is_none());
    }
}
