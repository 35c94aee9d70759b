//! `status --output json`: the documented, versioned form for scripts.

use serde::{Deserialize, Serialize};

use super::{CheckView, DowntimeView, HealthView, Role, RolloutStatus, Snapshot, VerdictView};
use crate::text::Safe;

/// The whole fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this type: 1.
    pub schema: u32,
    /// Name of the fleet.
    pub fleet: Safe,
    /// Services, sorted by name.
    pub services: Vec<StatusService>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusService {
    /// Its name.
    pub name: Safe,
    /// The revision that serves now.
    pub stable: Option<StatusStable>,
    /// The rollout under way, or the one that ended last.
    pub rollout: Option<StatusRollout>,
    /// Revisions in the route or kept.
    pub revisions: Vec<StatusRevision>,
    /// Differences between what should run and what does.
    pub drift: Vec<Safe>,
}

/// What serves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusStable {
    /// Readable tag.
    pub version: Safe,
    /// The artifact.
    pub digest: Safe,
}

/// A rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusRollout {
    /// `SERVICE-N`.
    pub id: Safe,
    /// For example `canary`.
    pub strategy: Safe,
    /// Version it started from; null for a first release.
    pub from: Option<Safe>,
    /// Version it brings.
    pub to: Safe,
    /// How it stands.
    pub status: RolloutStatus,
    /// Why.
    pub reason: Safe,
    /// Its decision number.
    pub decision: u64,
    /// Where it is.
    pub phase: StatusPhase,
    /// What the analysis says of it; left out when nobody judges it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<VerdictView>,
    /// What its checks say; left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckView>,
    /// Hosts that were rolled back alone; left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Safe>,
    /// How long the place of each replaced instance was empty (in-place); left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub downtimes: Vec<DowntimeView>,
}

/// A rollout's phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusPhase {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
    /// Its name.
    pub name: Safe,
}

/// One revision. Weights and shares are per cent (0 to 100).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusRevision {
    /// Readable tag.
    pub version: Safe,
    /// Its part.
    pub role: Role,
    /// `a`, `b` or null.
    pub slot: Option<Safe>,
    /// Share that was set.
    pub weight: f64,
    /// Share that was read back, of the worst proxy; null when unknown.
    pub actual_weight: Option<f64>,
    /// Share that was measured; null without traffic.
    pub share: Option<f64>,
    /// Its instances.
    pub instances: Vec<StatusInstance>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusInstance {
    /// Its id.
    pub id: Safe,
    /// Its host.
    pub host: Safe,
    /// Address and port; null while unknown.
    pub endpoint: Option<Safe>,
    /// `running`, `exited`, …
    pub state: Safe,
    /// Whether our own probes say healthy; null while unknown.
    pub healthy: Option<bool>,
    /// How often the engine started it again.
    pub restarts: u32,
}

/// The documented form of a snapshot.
#[must_use]
pub fn status(s: &Snapshot) -> Status {
    let percent = |bp: u16| f64::from(bp) / 100.0;
    let services = s.services.iter().map(|svc| {
        let revisions = svc.revisions.iter().map(|r| {
            let instances = s
                .instances
                .iter()
                .filter(|i| i.service == svc.name && i.revision == r.revision.id)
                .map(|i| StatusInstance {
                    id: i.id.clone(),
                    host: i.host.clone(),
                    endpoint: i.endpoint.clone(),
                    state: i.state.clone(),
                    healthy: match i.health {
                        HealthView::Unknown => None,
                        HealthView::Healthy => Some(true),
                        HealthView::Unhealthy => Some(false),
                    },
                    restarts: i.restarts,
                })
                .collect();
            StatusRevision {
                version: r.revision.version.clone(),
                role: r.role,
                slot: r.slot.clone(),
                weight: percent(r.weight),
                actual_weight: r.actual_weight.map(percent),
                share: r.share.map(percent),
                instances,
            }
        });
        let rollout = svc.rollout.as_ref().map(|r| StatusRollout {
            id: r.id.clone(),
            strategy: r.strategy.clone(),
            from: r.from.clone(),
            to: r.to.clone(),
            status: r.status,
            reason: r.reason.clone(),
            decision: r.decision,
            phase: StatusPhase {
                index: r.phase,
                count: r.phases.len(),
                name: r.phases.get(r.phase).map(|p| p.name.clone()).unwrap_or_default(),
            },
            verdict: r.verdict.clone(),
            checks: r.checks.clone(),
            held: r.held.clone(),
            downtimes: r.downtimes.clone(),
        });
        StatusService {
            name: svc.name.clone(),
            stable: svc
                .stable
                .as_ref()
                .map(|r| StatusStable { version: r.version.clone(), digest: r.digest.clone() }),
            rollout,
            revisions: revisions.collect(),
            drift: svc.drift.clone(),
        }
    });
    Status { schema: 1, fleet: s.controller.fleet.clone(), services: services.collect() }
}
