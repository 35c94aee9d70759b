//! HAProxy's counters, which start anew in every worker, made into ones that never go backwards.
//!
//! Per server line, as `show stat` has it on 2.6 (tried with servers that refuse and servers that hang up):
//! - requests: `req_tot` (answers with a status) + `econ` (gave up connecting) + `eresp` (no valid answer);
//! - errors: `hrsp_5xx` + `econ` + `eresp` + `srv_abrt` (hung up in mid-answer), at most the requests;
//! - retries: the larger of `wretr` and `wredis`. An attempt that HAProxy repeats after an empty answer counts in
//!   both, one that failed to connect in `wredis` only, so their sum would count twice.

use std::collections::{BTreeMap, BTreeSet};

use super::config;
use super::parse;
use crate::fleet::names::{FleetName, InstanceId};
use crate::traffic::Counters;
use crate::traffic::totals::Totals;

/// Totals per instance over all workers (by pid) and backends.
#[derive(Default)]
pub(super) struct Accumulator(Totals<(u32, String)>);

impl Accumulator {
    /// Takes one worker's `show stat`.
    pub(super) fn take(&mut self, pid: u32, fleet: &FleetName, stat: &str) {
        let mut mean: BTreeMap<InstanceId, (u64, u64)> = BTreeMap::new();
        parse::stats(stat, |row| {
            let (backend, server) = (row.text("pxname"), row.text("svname"));
            if config::parse_backend(fleet, backend).is_none() {
                return;
            }
            let Ok(instance) = server.parse::<InstanceId>() else { return };
            if row.text("type") != "2" {
                return;
            }
            let n = |name: &str| row.number(name);
            let requests = n("req_tot") + n("econ") + n("eresp");
            let now = Counters {
                requests,
                errors: (n("hrsp_5xx") + n("econ") + n("eresp") + n("srv_abrt")).min(requests),
                retries: n("wretr").max(n("wredis")),
                ..Counters::default()
            };
            let fresh = self.0.take((pid, backend.to_owned()), &instance, now);
            let weight = mean.entry(instance).or_default();
            weight.0 += n("ttime") * fresh.requests;
            weight.1 += fresh.requests;
        });
        for (instance, (sum, count)) in mean {
            if let (Some(mean), Some(total)) = (sum.checked_div(count), self.0.all().get_mut(&instance)) {
                total.mean_ms = Some(u32::try_from(mean).unwrap_or(u32::MAX));
            }
        }
    }

    /// Forgets workers that are gone.
    pub(super) fn keep(&mut self, pids: &BTreeSet<u32>) {
        self.0.keep_sources(|(pid, _)| pids.contains(pid));
    }

    /// Forgets instances that nobody asks for any more.
    pub(super) fn forget(&mut self, gone: &dyn Fn(&InstanceId) -> bool) {
        self.0.forget(gone);
    }

    /// The totals.
    pub(super) fn totals(&mut self) -> BTreeMap<InstanceId, Counters> {
        self.0.all().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(req: u64, e5: u64, eresp: u64, wretr: u64, wredis: u64) -> String {
        format!(
            "# pxname,svname,type,req_tot,hrsp_5xx,econ,eresp,wretr,wredis,srv_abrt,ttime\n\
             fe,FRONTEND,0,99,9,,,,,,\nph_f_web_b,web-00000001-1,2,{req},{e5},0,{eresp},{wretr},{wredis},0,7\n\
             ph_f_web_b,BACKEND,1,99,9,,,,,,\nother,web-00000001-1,2,99,9,0,0,0,0,0,1\n"
        )
    }

    #[test]
    fn totals_survive_new_workers_and_count_each_failure_once() {
        let fleet = "f".parse().unwrap();
        let id: InstanceId = "web-00000001-1".parse().unwrap();
        let mut acc = Accumulator::default();
        acc.take(1, &fleet, &stat(10, 1, 2, 30, 30));
        acc.take(1, &fleet, &stat(10, 1, 2, 30, 30));
        let c = acc.totals()[&id].clone();
        assert_eq!((c.requests, c.errors, c.retries, c.mean_ms), (12, 3, 30, Some(7)));
        acc.take(2, &fleet, &stat(5, 0, 0, 0, 4));
        acc.take(1, &fleet, &stat(11, 1, 2, 30, 31));
        let c = acc.totals()[&id].clone();
        assert_eq!((c.requests, c.errors, c.retries), (18, 3, 35));
        acc.keep(&BTreeSet::from([2]));
        acc.take(2, &fleet, &stat(1, 1, 0, 0, 0));
        let c = acc.totals()[&id].clone();
        assert_eq!((c.requests, c.errors, c.retries), (19, 4, 35), "counters that fell began anew");
    }
}
